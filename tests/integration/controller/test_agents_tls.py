"""The files of `proctor init` as controllers and agents use them: TLS, keys, the CA that a join hands out."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from proctor_cli.init.identity import Identities, make_identities
from proctor_cli.init.nats_conf import NatsTls, nats_server_conf
from proctor_common.bus import Bus, BusUnavailable
from proctor_common.settings import load_settings
from proctor_controller.settings import ControllerSettings
from support.control import Control, api_options, controller, new_key, until_ready
from support.nats import NatsServer
from support.postgres import Database


class TlsNats(NatsServer):
    """nats-server from the files of one installation."""

    def __init__(self, identities: Identities) -> None:
        super().__init__()
        self._identities = identities

    def write_config(self) -> Path:
        path = self.folder / "nats.conf"
        tls = NatsTls(self._identities.certificate("nats"), self._identities.key("nats"))
        listen = f"127.0.0.1:{self.port}"
        path.write_text(nats_server_conf(self._identities.nats(), listen=listen, store=self.store, tls=tls))
        return path


@pytest.fixture
def identities(tmp_path: Path) -> Identities:
    return make_identities(tmp_path / "installation")


@pytest.fixture
def tls_nats(identities: Identities) -> Iterator[TlsNats]:
    server = TlsNats(identities)
    try:
        server.start()
        yield server
    finally:
        server.close()


async def test_an_agent_joins_over_tls_with_the_files_of_init(
    identities: Identities, tls_nats: TlsNats, control_database: Database, tmp_path: Path
) -> None:
    url = tls_nats.url.replace("nats://", "tls://")
    environ = {
        "DATABASE_URL": control_database.dsn,
        "NATS_URLS": url,
        "NATS_CA_FILE": str(identities.ca),
        "NATS_NKEY_FILE": str(identities.nats_seed("controller")),
        "SYSTEM_NKEY_FILE": str(identities.nats_seed("system")),
        "ACCOUNT_KEY_FILE": str(identities.account_key),
        "SEAL_KEY_FILE": str(identities.sealing_key),
    }
    settings = load_settings(
        ControllerSettings, environ={f"PROCTOR_CONTROLLER_{name}": value for name, value in environ.items()}
    )
    seed = identities.nats_seed("api").read_text().strip()
    async with controller(settings), Bus(api_options(url, seed, ca_file=str(identities.ca))) as bus:
        here = Control(url, control_database, bus)
        await until_ready(here)
        token = (await here.call("agent.enrol", {"host": "node-1"}))["token"]
        key = new_key()
        joined = await here.call("agent.join", {"token": token, "public_key": key.public})
        assert joined["nats"] == {"urls": [url], "ca": identities.ca.read_text()}
        agent = await here.use(token, "node-1", key)
        ca = tmp_path / "ca.pem"
        ca.write_text(joined["nats"]["ca"])
        async with agent.connect(ca_file=str(ca)) as connected:
            assert not (await agent.register(connected)).refused
        with pytest.raises(BusUnavailable):
            async with agent.connect(start_timeout=0.1):
                pass
