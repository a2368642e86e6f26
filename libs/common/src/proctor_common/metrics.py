"""Metrics: a registry that is made once and passed on; nothing is registered at import."""

from prometheus_client import CollectorRegistry, Gauge, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from proctor_common.bus.bus import Bus

CONTENT_TYPE = CONTENT_TYPE_LATEST


def make_registry() -> CollectorRegistry:
    """A registry with the process's own metrics (memory, CPU, file descriptors)."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


def observe_bus(registry: CollectorRegistry, bus: Bus) -> None:
    """Export the state of the bus: connected, connections lost, handlers that failed."""
    connected = Gauge("proctor_bus_connected", "1 while there is a connection to NATS", registry=registry)
    connected.set_function(lambda: float(bus.connected))
    restarts = Gauge("proctor_bus_restarts", "Connections to NATS made after the first one", registry=registry)
    restarts.set_function(lambda: bus.restarts)
    failures = Gauge("proctor_bus_handler_failures", "Handlers and callbacks that raised", registry=registry)
    failures.set_function(lambda: bus.handler_failures)


def render(registry: CollectorRegistry) -> bytes:
    """The text for Prometheus; its media type is :data:`CONTENT_TYPE`."""
    return generate_latest(registry)
