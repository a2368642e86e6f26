"""How the api is served: TLS, figures on an address of their own, a database that goes away."""

import asyncio
import json
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.asyncio.client import connect

from proctor_api.migrations import CHAIN
from proctor_api.settings import ApiSettings
from proctor_common.pg import make_engine, migrate
from support.api_world import FIRST_TOKEN, World, running
from support.nats import NatsAccount
from support.postgres import Database, PostgresServer
from support.processes import free_port
from support.wait import eventually

HEADERS = {"Authorization": f"Bearer {FIRST_TOKEN}"}


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return cert_file, key_file


def settings(nats: NatsAccount, database: Database, **changes: Any) -> ApiSettings:
    values: dict[str, Any] = {
        "http": f"127.0.0.1:{free_port()}",
        "database_url": database.dsn,
        "nats_urls": (nats.url,),
        "first_token": FIRST_TOKEN,
        "log_tick": 0.2,
        "token_cache": 1.0,
    }
    return ApiSettings(**{**values, **changes})


async def test_tls_for_requests_and_websockets(
    nats: NatsAccount, migrated: Database, world: World, tmp_path: Path
) -> None:
    cert, key = write_certificate(tmp_path)
    metrics = f"127.0.0.1:{free_port()}"
    given = settings(nats, migrated, tls_cert_file=cert, tls_key_file=key, metrics_http=metrics)
    trust = ssl.create_default_context(cafile=str(cert))
    run = world.add_run()
    attempt = world.begin(run)
    await world.write(run, attempt, "x" * 60_000 + "\n")
    async with running(given, trust), httpx.AsyncClient(verify=trust, base_url=f"https://{given.http}") as http:
        session = await http.post("/v1/session", json={"token": FIRST_TOKEN})
        assert "Secure" in session.headers["set-cookie"]
        url = f"wss://{given.http}/v1/runs/{run.id}/logs/tail"
        async with asyncio.timeout(10), connect(url, ssl=trust, additional_headers=HEADERS) as socket:
            assert len(json.loads(await socket.recv())["text"]) == 60_001
        async with httpx.AsyncClient() as plain:
            figures = await plain.get(f"http://{metrics}/metrics")
            assert "proctor_api_requests_total" in figures.text


async def test_without_a_database_it_is_503_and_the_log_goes_on(
    nats: NatsAccount, world: World, postgres_server: PostgresServer
) -> None:
    database = postgres_server.create_database()
    engine = make_engine(database.dsn, application_name="test")
    await migrate(engine, CHAIN)
    await engine.dispose()
    run = world.add_run()
    attempt = world.begin(run)
    given = settings(nats, database)
    url = f"ws://{given.http}/v1/runs/{run.id}/logs/tail"
    async with (
        running(given),
        httpx.AsyncClient(base_url=f"http://{given.http}", headers=HEADERS) as http,
        connect(url, additional_headers=HEADERS) as socket,
    ):
        postgres_server.kill()

        async def refused() -> bool:
            answer = await http.get("/v1/agents")
            return answer.status_code == 503 and answer.json()["code"] == "database_unavailable"

        await eventually(refused, 10, "a request to be refused for want of a database")
        assert (await http.get("/readyz")).json()["checks"] == {"bus": "ok", "database": "failed"}
        await world.write(run, attempt, "still here\n")
        async with asyncio.timeout(10):
            assert json.loads(await socket.recv())["text"] == "still here\n"
        postgres_server.start()

        async def served() -> bool:
            return (await http.get("/v1/agents")).status_code == 200

        await eventually(served, 10, "requests to be served again")
