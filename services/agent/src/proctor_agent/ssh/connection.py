"""One SSH connection to a target: opened with its host key checked, nothing forwarded, public keys only."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import asyncssh

from proctor_agent.attempt import Target
from proctor_agent.ssh import faults
from proctor_agent.ssh.faults import SshFault

# Cheapest first: on hosts with AES in hardware GCM costs a third of ChaCha20 in asyncssh.
CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes128-ctr",
    "aes256-ctr",
)
HOST_KEYS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
CERTIFICATES = (
    "ssh-ed25519-cert-v01@openssh.com",
    "ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "ecdsa-sha2-nistp384-cert-v01@openssh.com",
    "ecdsa-sha2-nistp521-cert-v01@openssh.com",
    "rsa-sha2-512-cert-v01@openssh.com",
    "rsa-sha2-256-cert-v01@openssh.com",
)
# Broken or weak, and all that some old devices have: only for targets whose settings say so.
LEGACY_CIPHERS = ("aes192-ctr", "aes128-cbc", "aes192-cbc", "aes256-cbc", "3des-cbc")
LEGACY_KEY_EXCHANGES = (
    "diffie-hellman-group-exchange-sha1",
    "diffie-hellman-group14-sha1",
    "diffie-hellman-group1-sha1",
)
LEGACY_MACS = ("hmac-sha1-96", "hmac-md5", "hmac-md5-96")
LEGACY_HOST_KEYS = ("ssh-rsa", "ssh-dss")
KEEPALIVE_S = 15
KEEPALIVE_COUNT = 3


class _Watch(asyncssh.SSHClient):
    """Sees how far the connection comes; remembers the host key that was offered and is not trusted, for the error's
    sake.
    """

    def __init__(self, limit: asyncio.Timeout, login_timeout: float) -> None:
        self.offered: asyncssh.SSHKey | None = None
        self.connected = False
        self.trusted = False
        """Whether the key exchange is done and the host's key good."""
        self._limit = limit
        self._login_timeout = login_timeout

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self.connected = True
        if not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time() + self._login_timeout)

    def public_key_auth_requested(self) -> None:
        self.trusted = True

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.offered = key
        return False


async def connect(target: Target) -> asyncssh.SSHClientConnection:
    """A fresh connection. Raises SshFault: unknown or changed host key, unusable key file, denied, unreachable."""
    known_file, known, keys = await asyncio.to_thread(_read_files, target)
    limit = asyncio.timeout(target.connect_timeout)
    watch = _Watch(limit, target.login_timeout)
    try:
        async with limit:
            return await asyncssh.connect(
                target.host,
                target.port,
                username=target.user or (),
                client_factory=lambda: watch,
                known_hosts=known,
                client_keys=keys,
                config=[],
                agent_path=None,
                agent_forwarding=False,
                password=None,
                preferred_auth="publickey",
                gss_host=None,
                compression_algs=None,
                keepalive_interval=KEEPALIVE_S,
                keepalive_count_max=KEEPALIVE_COUNT,
                login_timeout=0,
                **_algorithms(known, target),
            )
    except asyncssh.HostKeyNotVerifiable as fault:
        raise _host_key_fault(target, known_file, known, watch.offered, str(fault)) from None
    except asyncssh.PermissionDenied as fault:
        raise SshFault(
            faults.DENIED,
            f"{_where(target)}: {fault.reason}; the target must list the public half of "
            f"{target.key_file or 'one of the default keys in ~/.ssh'} in the account's authorized_keys",
            target=target.name,
        ) from None
    except TimeoutError:
        raise _too_slow(target, watch.connected) from None
    except (OSError, asyncssh.Error, ValueError) as fault:
        # ValueError: a host name that no resolver can be asked for.
        why = fault.reason if isinstance(fault, asyncssh.Error) else (getattr(fault, "strerror", "") or str(fault))
        why += _hint(target, fault, watch)
        raise SshFault(faults.UNREACHABLE, f"{_where(target)}: {why}", target=target.name) from None


def _too_slow(target: Target, connected: bool) -> SshFault:
    phase, bound = ("login", target.login_timeout) if connected else ("connect", target.connect_timeout)
    what = "it took the connection, but there was no login" if connected else "no connection"
    return SshFault(
        faults.UNREACHABLE,
        f"{_where(target)}: {what} within {bound:g} s ({phase}_timeout)",
        target=target.name,
        phase=phase,
        bound_s=bound,
    )


def _hint(target: Target, fault: Exception, watch: _Watch) -> str:
    hung_up = isinstance(fault, asyncssh.DisconnectError) and watch.connected and not watch.trusted
    if target.legacy_algorithms or not (hung_up or isinstance(fault, asyncssh.KeyExchangeFailed)):
        return ""
    return (
        f". If it has old algorithms only, legacy_algorithms = true below [targets.{target.name}] in the agent's "
        "settings takes those too"
    )


def _where(target: Target) -> str:
    return f"target {target.name} ({target.host}:{target.port})"


def _read_files(target: Target) -> tuple[Path, bytes, list[asyncssh.SSHKeyPair] | tuple[()]]:
    path = target.known_hosts_file or Path("~/.ssh/known_hosts").expanduser()
    try:
        known = path.read_bytes()
    except FileNotFoundError:
        known = b""
    except OSError as fault:
        raise SshFault(faults.HOST_KEY_UNKNOWN, f"cannot read the known hosts {path}: {fault.strerror}") from None
    try:
        asyncssh.import_known_hosts(known.decode())
    except ValueError as fault:
        raise SshFault(faults.HOST_KEY_UNKNOWN, f"the known hosts {path} cannot be understood: {fault}") from None
    return path, known, _read_key(target)


def _read_key(target: Target) -> list[asyncssh.SSHKeyPair] | tuple[()]:
    if target.key_file is None:
        return ()
    try:
        return list(asyncssh.load_keypairs([str(target.key_file)]))
    except OSError as fault:
        why = fault.strerror or str(fault)
    except asyncssh.KeyEncryptionError:
        why = "it is locked by a passphrase; an agent needs one without"
    except (asyncssh.KeyImportError, ValueError) as fault:
        why = str(fault)
    raise SshFault(faults.KEY_UNUSABLE, f"target {target.name}: key {target.key_file}: {why}", target=target.name)


def _match(known: bytes, target: Target) -> tuple[list[asyncssh.SSHKey], bool]:
    """The keys that known_hosts expects of the target, and whether a certificate authority may vouch for it."""
    port = None if target.port == asyncssh.DEFAULT_PORT else target.port
    with contextlib.suppress(ValueError):
        matched = asyncssh.match_known_hosts(known, target.host, "", port)
        return list(matched[0]), bool(matched[1])
    return [], False


def _algorithms(known: bytes, target: Target) -> dict[str, Any]:
    """What is offered. Of host keys the kinds of the expected ones first; but all kinds, so that a host that now has
    another kind of key shows it.
    """
    expected, authority = _match(known, target)
    wanted = [algorithm.decode("ascii") for key in expected for algorithm in key.sig_algorithms]
    keys = [*(CERTIFICATES if authority else ()), *wanted, *HOST_KEYS]
    if not target.legacy_algorithms:
        return {"server_host_key_algs": list(dict.fromkeys(keys)), "encryption_algs": CIPHERS}
    return {
        "server_host_key_algs": list(dict.fromkeys([*keys, *LEGACY_HOST_KEYS])),
        "encryption_algs": (*CIPHERS, *LEGACY_CIPHERS),
        "kex_algs": "+" + ",".join(LEGACY_KEY_EXCHANGES),
        "mac_algs": "+" + ",".join(LEGACY_MACS),
    }


def _fingerprint(key: asyncssh.SSHKey) -> str:
    return f"{key.get_algorithm()} {key.get_fingerprint()}"


def _host_key_fault(
    target: Target, known_file: Path, known: bytes, offered: asyncssh.SSHKey | None, why: str
) -> SshFault:
    expected = [_fingerprint(key) for key in _match(known, target)[0]]
    shown = _fingerprint(offered) if offered is not None else why
    data = {"target": target.name, "offered": shown, "expected": expected, "known_hosts": str(known_file)}
    if offered is None:
        return SshFault(faults.HOST_KEY_CHANGED, f"{_where(target)}: refused: {why} (by {known_file})", **data)
    if not expected:
        return SshFault(
            faults.HOST_KEY_UNKNOWN,
            f"{_where(target)}: unknown host key, refused; offered {shown}, expected: none is in {known_file}. "
            "Compare the fingerprint with the host's own (ssh-keygen -lf on it), then add the host's line to that file",
            **data,
        )
    return SshFault(
        faults.HOST_KEY_CHANGED,
        f"{_where(target)}: the host key has CHANGED, refused; offered {shown}, expected {', '.join(expected)}. "
        f"Someone may stand between. If the host was really set up anew, replace its line in {known_file}",
        **data,
    )
