"""Metrics of the api."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Figures:
    """Counters and histograms of requests, logs and recorded results."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.requests = Counter(
            "proctor_api_requests", "HTTP requests answered", ["method", "route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "proctor_api_request_seconds",
            "Time from a request's head to the end of its answer",
            ["method", "route"],
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 30),
            registry=registry,
        )
        self.log_bytes = Counter("proctor_api_log_bytes", "Bytes of log shown to viewers", registry=registry)
        self.slow_viewers = Counter(
            "proctor_api_slow_viewers", "Websockets closed because their client stopped reading", registry=registry
        )
        self.recorded = Counter("proctor_api_results_recorded", "Finished steps that became results", registry=registry)
        self.rejected = Counter(
            "proctor_api_records_rejected", "Finished steps whose record could not be stored", registry=registry
        )

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a gauge whose value is read at each scrape."""
        Gauge(name, text, registry=self._registry).set_function(read)
