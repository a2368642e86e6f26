"""The clock of the two jobs: aligned like a crontab's ``*/N``, by APScheduler."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.cron import CronTrigger

from proctor_controller.domain.volumes.settings import PoolSettings

LATE_SECONDS = 30
RunJob = Callable[[str], Awaitable[None]]


def trigger(minutes: int) -> CronTrigger:
    """Every so many minutes of the hour, from :00 on; 60: each full hour."""
    return CronTrigger(minute="0" if minutes >= 60 else f"*/{minutes}", second="0", timezone=UTC)


class Timers:
    """Starts ``replenish`` and ``sync`` by the clock while started. The job itself prevents overlaps."""

    def __init__(self, run: RunJob) -> None:
        self._run = run
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._minutes: dict[str, int] = {}

    def apply(self, settings: PoolSettings) -> None:
        """Use these frequencies from now on."""
        wanted = {
            "replenish": settings.backup_frequency_minute,
            "sync": settings.check_state_frequency_minute,
        }
        for name, minutes in wanted.items():
            if self._minutes.get(name) != minutes:
                self._minutes[name] = minutes
                self._scheduler.add_job(
                    self._run,
                    trigger(minutes),
                    args=(name,),
                    id=name,
                    replace_existing=True,
                    coalesce=True,
                    max_instances=100,
                    misfire_grace_time=LATE_SECONDS,
                )

    def start(self) -> None:
        """Start the clock."""
        self._scheduler.start()

    def next_runs(self) -> dict[str, datetime]:
        """When each job runs next, by the clock."""
        return {job.id: job.next_run_time for job in self._scheduler.get_jobs()}

    def close(self) -> None:
        """Start no more jobs."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
