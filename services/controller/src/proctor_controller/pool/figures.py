"""Metrics of the pool, by type."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from proctor_controller.db.pool.pools import PoolRow
from proctor_controller.domain.volumes.refill import quantile
from proctor_controller.pool.pool import VolumePool

_BY_TYPE: tuple[tuple[str, str, Callable[[PoolRow], float]], ...] = (
    ("proctor_pool_target", "Spares wanted", lambda row: row.stock.target),
    ("proctor_pool_ready", "Idle spares", lambda row: row.ready),
    ("proctor_pool_creating", "Spares on their way", lambda row: row.creating + row.intent),
    ("proctor_pool_failed", "Volumes that failed within the last day", lambda row: row.failed),
    ("proctor_pool_leaked", "Volumes that the backend will not delete", lambda row: row.leaked),
)
_COUNTED: tuple[tuple[str, str, Callable[[PoolRow], float]], ...] = (
    ("proctor_pool_claims", "Volumes asked for by VNFs and runs", lambda row: row.claims),
    ("proctor_pool_hits", "Of these, served from the pool", lambda row: row.hits),
)


def observe_pool(registry: CollectorRegistry, pool: VolumePool) -> None:
    """Export the pools as they were last read."""
    registry.register(_PoolCollector(pool))


class _PoolCollector(Collector):
    def __init__(self, pool: VolumePool) -> None:
        self._pool = pool

    def collect(self) -> Iterable[Metric]:
        snapshot = self._pool.snapshot
        for name, text, read in _BY_TYPE:
            gauge = GaugeMetricFamily(name, text, labels=["type"])
            for row in snapshot.pools:
                gauge.add_metric([row.type], read(row))
            yield gauge
        for name, text, read in _COUNTED:
            counter = CounterMetricFamily(name, text, labels=["type"])
            for row in snapshot.pools:
                counter.add_metric([row.type], read(row))
            yield counter
        waits = GaugeMetricFamily("proctor_pool_claim_seconds", "Time of a claim", labels=["type", "quantile"])
        for row in snapshot.pools:
            for share in (0.5, 0.99):
                seconds = quantile(row.histogram, share)
                if seconds is not None:
                    waits.add_metric([row.type, str(share)], seconds)
        yield waits
        calls = CounterMetricFamily("proctor_pool_backend_calls", "Calls of the backend", labels=["call", "outcome"])
        for (call, outcome), count in sorted(self._pool.keeper.calls.items()):
            calls.add_metric([call, outcome], count)
        yield calls
        breakers = GaugeMetricFamily("proctor_pool_breaker_open", "1 while creation is stopped", labels=["scope"])
        for scope, breaker in snapshot.breakers.items():
            breakers.add_metric([scope or "backend"], float(breaker.open))
        yield breakers
        yield from self._jobs()

    def _jobs(self) -> Iterable[Metric]:
        last = GaugeMetricFamily("proctor_pool_job_last_run_seconds", "When a job last began, epoch", labels=["job"])
        skipped = GaugeMetricFamily("proctor_pool_job_last_skip_seconds", "When a run was last skipped", labels=["job"])
        for name, job in self._pool.snapshot.jobs.items():
            if job.started_at is not None:
                last.add_metric([name], job.started_at.timestamp())
            if job.skipped_at is not None:
                skipped.add_metric([name], job.skipped_at.timestamp())
        yield last
        yield skipped
