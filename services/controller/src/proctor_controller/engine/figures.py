"""Metrics of the engine, read when somebody asks for them."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge

from proctor_controller.engine.engine import Engine
from proctor_controller.engine.reports import Reports


def observe_engine(registry: CollectorRegistry, engine: Engine, reports: Reports) -> None:
    """Show what the engine has decided, and what it would not believe."""
    figures: tuple[tuple[str, str, Callable[[], float]], ...] = (
        ("proctor_engine_decisions", "Decisions that were committed", lambda: engine.decisions),
        ("proctor_engine_stale", "Events that changed nothing", lambda: engine.stale),
        (
            "proctor_engine_conflicts",
            "Decisions made again because a run had changed meanwhile",
            lambda: engine.conflicts,
        ),
        ("proctor_engine_effects_failed", "Effects left to the watchdog", lambda: engine.tasks.failures),
        ("proctor_reports_unreadable", "Reports of agents that could not be read", lambda: reports.unreadable),
        ("proctor_reports_forged", "Reports about attempts their agent was never given", lambda: reports.forged),
    )
    for name, description, read in figures:
        Gauge(name, description, registry=registry).set_function(read)
