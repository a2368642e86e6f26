"""What routes share: built once in ``main.py``, reached through ``app.state``."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import HTTPConnection

from proctor_api.auth import Authenticator, Caller
from proctor_api.controller_client import ControllerClient
from proctor_api.figures import Figures
from proctor_api.idempotency import Idempotency
from proctor_api.limits import RateLimit, Sockets
from proctor_api.logs.feeds import Feeds
from proctor_api.settings import ApiSettings
from proctor_api.store.tokens import TokenStore
from proctor_api.watch import Watch
from proctor_common.bus import Bus
from proctor_common.clock import Clock


@dataclass(frozen=True, slots=True)
class ApiContext:
    """Everything a route may use."""

    settings: ApiSettings
    clock: Clock
    bus: Bus
    engine: AsyncEngine
    tokens: TokenStore
    auth: Authenticator
    controllers: ControllerClient
    idempotency: Idempotency
    feeds: Feeds
    watch: Watch
    sockets: Sockets
    tries: RateLimit
    registry: CollectorRegistry
    figures: Figures


def context_of(connection: HTTPConnection) -> ApiContext:
    """The process's context."""
    context: ApiContext = connection.app.state.context
    return context


def caller_of(connection: HTTPConnection) -> Caller:
    """The caller, as the guard of the route found it before it read the body."""
    caller: Caller = connection.state.caller
    return caller
