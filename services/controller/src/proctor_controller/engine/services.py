"""What the parts of the engine share, and the one way back to it."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common.bus import Bus
from proctor_controller.db.sealing import Seal
from proctor_controller.domain.runs.decision import Decision, Stale
from proctor_controller.domain.runs.events import Event
from proctor_controller.engine.cache import Cache
from proctor_controller.engine.scopes import Scopes
from proctor_controller.engine.settings import EngineSettings
from proctor_controller.engine.tasks import Tasks

Feed = Callable[[Event], Coroutine[Any, Any, Decision | Stale]]
"""Decides about an event and commits what follows from it: ``Engine.feed``. Raises ProctorError
``database_unavailable``, Contended.
"""


class Contended(Exception):
    """A run changed under every try to write it; the watchdog will look at it again."""


@dataclass(frozen=True, slots=True)
class EngineServices:
    """One for a controller process, see :func:`make_services`."""

    database: AsyncEngine
    bus: Bus
    seal: Seal
    settings: EngineSettings
    tasks: Tasks
    scopes: Scopes
    cache: Cache


def make_services(
    database: AsyncEngine, bus: Bus, seal: Seal, settings: EngineSettings | None = None, *, perform: bool = True
) -> EngineServices:
    """``perform`` False (tests of a crash): decisions are saved and nothing else happens."""
    settings = settings or EngineSettings()
    scopes = Scopes(seal, settings.secrets_dir)
    return EngineServices(database, bus, seal, settings, Tasks(start=perform), scopes, Cache())
