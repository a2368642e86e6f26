"""NATS in the clear beyond loopback: refused, unless the operator allows it."""

from urllib.parse import urlsplit

import pytest

from proctor_api.settings import ApiSettings
from proctor_common.service import ConfigurationError
from proctor_common.settings import load_settings
from support.nats import NatsAccount
from support.postgres import Database
from support.processes import VENV_BIN, Processes, free_port


def test_the_api_speaks_in_the_clear_when_it_is_allowed_to(
    processes: Processes, nats: NatsAccount, api_database: Database
) -> None:
    # An address of this machine that does not count as loopback.
    beyond = urlsplit(nats.url)._replace(netloc=f"{nats.user}:{nats.password}@0.0.0.0:{nats.server.port}").geturl()
    given = {"HTTP": f"127.0.0.1:{free_port()}", "DATABASE_URL": api_database.dsn, "NATS_URLS": beyond}
    environment = {f"PROCTOR_API_{name}": value for name, value in given.items()}
    refused = processes.start([VENV_BIN / "proctor-api"], env=environment, clean_env=True)
    assert refused.wait(20) == 2
    assert "allow_plaintext" in refused.stderr
    allowed = processes.start(
        [VENV_BIN / "proctor-api"], env={**environment, "PROCTOR_API_ALLOW_PLAINTEXT": "true"}, clean_env=True
    )
    allowed.wait_for_line('"listening"', 20)
    assert "plaintext_allowed" in allowed.stderr
    assert nats.password not in allowed.stderr


@pytest.mark.parametrize(
    ("url", "ca", "taken"),
    [
        ("nats://bus.example:4222", None, False),
        ("nats://bus.example:4222", "/some/ca.crt", True),
        ("tls://bus.example:4222", None, True),
        ("nats://127.0.0.1:4222", None, True),
    ],
)
def test_what_counts_as_protected(url: str, ca: str | None, taken: bool) -> None:
    environ = {"PROCTOR_API_DATABASE_URL": "postgresql://x@/x", "PROCTOR_API_NATS_URLS": url}
    environ |= {"PROCTOR_API_NATS_CA_FILE": ca} if ca else {}
    if taken:
        load_settings(ApiSettings, environ=environ)
    else:
        with pytest.raises(ConfigurationError, match="allow_plaintext"):
            load_settings(ApiSettings, environ=environ)
