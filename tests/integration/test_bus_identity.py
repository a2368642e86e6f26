"""Who the bus connects as, and to whom: nkeys, the token for an auth callout, TLS."""

import datetime
import ipaddress
import os
from pathlib import Path

import nkeys
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from proctor_common import subjects
from proctor_common.bus import Bus, BusOptions, BusUnavailable, Message
from support.nats import NatsServer
from support.wait import eventually


def seed() -> tuple[str, str]:
    """A user's seed and public key."""
    text = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    return text.decode(), nkeys.from_seed(bytearray(text)).public_key.decode()


async def configure(server: NatsServer, config: str) -> None:
    server.stop()
    server.config = config
    server.start()


async def test_an_nkey_is_proven_and_never_shown(nats_server: NatsServer) -> None:
    mine, public = seed()
    another, _ = seed()
    await configure(nats_server, f"authorization {{ users: [ {{ nkey: {public} }} ] }}\n")
    options = BusOptions((nats_server.url,), "agent", nkey_seed=mine, auth_token="t0ken")
    assert mine not in repr(options)
    assert "t0ken" not in repr(options)
    async with Bus(options) as bus:
        assert await bus.rtt() < 5
    with pytest.raises(BusUnavailable, match="Authorization"):
        async with Bus(BusOptions((nats_server.url,), "x", nkey_seed=another, start_timeout=0.1)):
            pass
    with pytest.raises(ValueError, match="nkey_seed"):
        async with Bus(BusOptions((nats_server.url,), "x", nkey_seed="S3CRET")):
            pass


async def test_an_auth_callout_can_be_served_and_sees_key_and_token(nats_server: NatsServer) -> None:
    mine, _ = seed()
    _, issuer = account()
    await configure(
        nats_server,
        f"""accounts {{ APP: {{ jetstream: enabled, users: [ {{ user: callout, password: pw }} ] }} }}
        authorization {{ timeout: 5, auth_callout {{ issuer: {issuer}, auth_users: [ callout ], account: APP }} }}
        """,
    )
    asked: list[bytes] = []

    async def refuse(message: Message) -> None:
        asked.append(message.data)

    address = f"127.0.0.1:{nats_server.port}"
    async with Bus(BusOptions((f"nats://callout:pw@{address}",), "callout")) as callout:
        await callout.serve(subjects.AUTH_CALLOUT, refuse, queue="controllers")
        options = BusOptions(
            (nats_server.url,), "agent", nkey_seed=mine, auth_token="t0ken", start_timeout=0.1, connect_timeout=0.5
        )
        with pytest.raises(BusUnavailable):
            async with Bus(options):
                pass
        await eventually(lambda: asked, what="the callout")
    assert asked[0].count(b".") == 2


def account() -> tuple[str, str]:
    text = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_ACCOUNT)
    return text.decode(), nkeys.from_seed(bytearray(text)).public_key.decode()


def certificate(folder: Path, name: str) -> Path:
    """A self-signed certificate for 127.0.0.1 and its key, as <name>.pem and <name>.key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    path.with_suffix(".key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


async def test_tls_is_checked_against_our_own_ca(nats_server: NatsServer, tmp_path: Path) -> None:
    ours, stranger = certificate(tmp_path, "ours"), certificate(tmp_path, "stranger")
    await configure(nats_server, f'tls {{ cert_file: "{ours}", key_file: "{ours.with_suffix(".key")}", timeout: 5 }}\n')
    address = f"127.0.0.1:{nats_server.port}"
    async with Bus(BusOptions((f"nats://{address}",), "x", ca_file=str(ours))) as bus:
        assert await bus.rtt() < 5
    for wrong in (str(stranger), None):
        with pytest.raises(BusUnavailable, match="certificate"):
            async with Bus(BusOptions((f"tls://{address}",), "x", ca_file=wrong, start_timeout=0.1)):
                pass
