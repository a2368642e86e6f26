"""The parts of a controller process: built once, frozen, passed to everything that needs them."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common import subjects
from proctor_common.bus import Bus, BusOptions, BusUnavailable
from proctor_common.clock import Clock, SystemClock
from proctor_common.ids import new_id
from proctor_common.metrics import make_registry, observe_bus
from proctor_common.pg import MigrationChain, make_engine, migrate
from proctor_common.service import Background, ConfigurationError, StartError, Stop
from proctor_controller.db.sealing import BadSealKey, Seal
from proctor_controller.db.session import Session
from proctor_controller.domain.hosts.requirements import VolumeRequirement
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.decision import Policy
from proctor_controller.engine.engine import Engine
from proctor_controller.engine.services import EngineServices, make_services
from proctor_controller.engine.settings import EngineSettings
from proctor_controller.identity.nkey import BadKey, Issuer
from proctor_controller.pool.claims import Claimed, Claims, WaitForVolumes, ends_of, wanted_of
from proctor_controller.pool.pool import VolumePool
from proctor_controller.pool.source import default_backend
from proctor_controller.settings import ControllerSettings

SERVER_SETTINGS = {"plan_cache_mode": "force_generic_plan", "random_page_cost": "1.1"}
"""The engine's statements are large: planning one again costs as much as running it and gains nothing. The rows of
running runs are in memory; with the planner's default cost of a random read it would scan all steps of a run to change
one."""
CHAIN = MigrationChain(package="proctor_controller.migrations", schemas=("control",))


@dataclass(frozen=True)
class ProcessContext:
    """The parts of a controller process."""

    settings: ControllerSettings
    replica: str
    """This process's name among the controllers."""
    clock: Clock
    database: AsyncEngine
    bus: Bus
    system: Bus | None
    """A connection to the system account; None: no key for it is set."""
    issuer: Issuer | None
    """Signs the users of agents; None: this controller admits no agents."""
    ca: str | None
    """PEM text of the CA that agents trust; None: connections to the bus are not encrypted."""
    registry: CollectorRegistry
    engine: Engine
    pool: VolumePool
    background: Background
    stop: Stop


@asynccontextmanager
async def open_context(settings: ControllerSettings, stop: Stop) -> AsyncIterator[ProcessContext]:
    """Migrate the schema, connect to the bus, and end both in the reverse order.

    Waits ``start_timeout`` seconds for a database or a bus that is not there yet. Raises StartError.
    """
    issuer, ca = _issuer(settings), _read_ca(settings)
    registry = make_registry()
    async with AsyncExitStack() as stack:
        database = make_engine(
            settings.database_url,
            application_name="proctor-controller",
            password=settings.database_password.get_secret_value() if settings.database_password else None,
            pool_size=settings.database_pool_size,
            max_overflow=settings.database_pool_size,
            server_settings=SERVER_SETTINGS,
        )
        stack.push_async_callback(database.dispose)
        await migrate(database, CHAIN, wait=settings.start_timeout)
        replica = new_id()
        try:
            bus = await stack.enter_async_context(Bus(bus_options(settings, replica)))
            system = None
            if settings.system_nkey is not None:
                system = await stack.enter_async_context(Bus(system_options(settings, replica)))
        except BusUnavailable as fault:
            raise StartError(str(fault)) from fault
        observe_bus(registry, bus)
        services = make_engine_services(settings, database, bus)
        pool = VolumePool(
            database,
            bus,
            SystemClock(),
            file=settings.pool_file,
            folder=settings.pool_folder,
            default_backend=default_backend(os.environ),
        )
        engine = Engine(services, PoolVolumes(pool.claims))
        stack.push_async_callback(engine.close)
        stack.push_async_callback(pool.close)
        background = await stack.enter_async_context(Background(stop))
        yield ProcessContext(
            settings=settings,
            replica=replica,
            clock=SystemClock(),
            database=database,
            bus=bus,
            system=system,
            issuer=issuer,
            ca=ca,
            registry=registry,
            engine=engine,
            pool=pool,
            background=background,
            stop=stop,
        )


class PoolVolumes:
    """The pool as the engine uses it."""

    def __init__(self, claims: Claims) -> None:
        self._claims = claims

    async def claim(
        self, run: str, wants: tuple[VolumeRequirement, ...]
    ) -> events.HostsHeld | events.MustWait | events.CannotBegin:
        """All volumes of a run, or none."""
        found = await self._claims.claim_for_run(run, wanted_of(wants))
        if isinstance(found, Claimed):
            return events.HostsHeld(run)
        if isinstance(found, WaitForVolumes):
            return events.MustWait(run, found.why, admitted=True)
        return events.CannotBegin(run, found.why)

    async def has(self, db: Session, run: str, wants: tuple[VolumeRequirement, ...]) -> bool:
        """Whether the run has all of them."""
        return await self._claims.has_all(db, run, wanted_of(wants))

    async def settle(self, run: str, wants: tuple[VolumeRequirement, ...]) -> None:
        """The run has ended; without ``wants`` all of its volumes are deleted."""
        await self._claims.settle_run(run, ends_of(wants))


def make_engine_services(settings: ControllerSettings, database: AsyncEngine, bus: Bus) -> EngineServices:
    """The engine's services. Raises StartError for an invalid seal key."""
    try:
        seal = Seal(settings.seal_key.get_secret_value() if settings.seal_key else None)
    except BadSealKey as fault:
        raise ConfigurationError(str(fault)) from fault
    return make_services(
        database,
        bus,
        seal,
        EngineSettings(
            policy=Policy(lost_grace_s=settings.lost_grace),
            attempt_log_limit=settings.attempt_log_limit,
            secrets_dir=settings.secrets_dir,
        ),
    )


def bus_options(settings: ControllerSettings, replica: str) -> BusOptions:
    """Options of this controller's connection to the bus."""
    return BusOptions(
        servers=tuple(settings.nats_urls),
        name=f"controller/{replica}",
        inbox_prefix=subjects.inbox_prefix("ctl"),
        nkey_seed=settings.nats_nkey.get_secret_value() if settings.nats_nkey else None,
        ca_file=str(settings.nats_ca_file) if settings.nats_ca_file else None,
        start_timeout=settings.start_timeout,
        allow_plaintext=settings.allow_plaintext,
    )


def system_options(settings: ControllerSettings, replica: str) -> BusOptions:
    """Options of this controller's connection to the system account."""
    return BusOptions(
        servers=tuple(settings.nats_urls),
        name=f"controller-system/{replica}",
        nkey_seed=settings.system_nkey.get_secret_value() if settings.system_nkey else None,
        ca_file=str(settings.nats_ca_file) if settings.nats_ca_file else None,
        start_timeout=settings.start_timeout,
        allow_plaintext=settings.allow_plaintext,
    )


def _issuer(settings: ControllerSettings) -> Issuer | None:
    if settings.account_key is None:
        return None
    try:
        return Issuer(settings.account_key.get_secret_value())
    except BadKey as fault:
        raise ConfigurationError(f"account_key: {fault}") from fault


def _read_ca(settings: ControllerSettings) -> str | None:
    if settings.nats_ca_file is None:
        return None
    try:
        return settings.nats_ca_file.read_text()
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigurationError(f"nats_ca_file: cannot read {settings.nats_ca_file}: {fault}") from fault
