"""What Prometheus is shown of the pool."""

from collections import Counter
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

from prometheus_client import CollectorRegistry

from proctor_controller.db.pool.jobs import Job
from proctor_controller.db.pool.pools import PoolRow as Row
from proctor_controller.domain.volumes.breaker import BACKEND, FAILURES, Breaker
from proctor_controller.domain.volumes.refill import BUCKETS
from proctor_controller.pool.figures import observe_pool
from proctor_controller.pool.snapshot import Snapshot

NOW = datetime(2026, 12, 1, tzinfo=UTC)
ROW = Row(
    type="igw",
    size_gb=1,
    target=11,
    file_target=11,
    version=1,
    listed=True,
    ready=5,
    creating=2,
    intent=1,
    failed=3,
    leaked=4,
    claims=10,
    hits=9,
    histogram=(10, *(0 for _ in BUCKETS[1:])),
)


def test_each_metric_of_the_page_is_there_under_its_name() -> None:
    snapshot = Snapshot(
        pools=[ROW],
        breakers={BACKEND: Breaker(BACKEND, FAILURES, opened_at=NOW, probe_at=NOW), "igw": Breaker("igw")},
        jobs={"sync": Job("sync", NOW, NOW, "", NOW, "the former run is still at work", None, at_work=False)},
    )
    pool = SimpleNamespace(snapshot=snapshot, keeper=SimpleNamespace(calls=Counter({("create", "ok"): 7})))
    registry = CollectorRegistry()
    observe_pool(registry, cast("Any", pool))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"proctor_pool_{name}", labels)

    by_type = {"target": 11, "ready": 5, "creating": 3, "failed": 3, "leaked": 4, "claims_total": 10, "hits_total": 9}
    assert {name: value(name, type="igw") for name in by_type} == by_type
    assert value("claim_seconds", type="igw", quantile="0.99") is not None
    assert value("breaker_open", scope="backend") == 1
    assert value("breaker_open", scope="igw") == 0
    assert value("backend_calls_total", call="create", outcome="ok") == 7
    assert value("job_last_run_seconds", job="sync") == value("job_last_skip_seconds", job="sync") == NOW.timestamp()
