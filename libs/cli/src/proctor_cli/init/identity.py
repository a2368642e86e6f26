"""The files of ``proctor init``, and how each one is made."""

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from proctor_cli.init import keys
from proctor_cli.init.files import keep_once, make_private_folder
from proctor_cli.init.nats_conf import NatsIdentities
from proctor_cli.init.roles import SCHEMAS

BASE_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Identities:
    """The paths of an installation's files, in one private folder."""

    folder: Path

    @property
    def account_key(self) -> Path:
        """Seed of the account that signs agents' users."""
        return self.folder / "nats" / "account.nk"

    def nats_seed(self, user: str) -> Path:
        """Seed of a static user: controller, api or system."""
        return self.folder / "nats" / f"{user}.nk"

    def password(self, role: str) -> Path:
        """Password of a PostgreSQL role; ``postgres`` is the superuser, for a server that needs one."""
        return self.folder / "postgres" / f"{role}.password"

    @property
    def sealing_key(self) -> Path:
        """The key that seals stored secrets."""
        return self.folder / "seal.key"

    @property
    def admin_token(self) -> Path:
        """The first admin token."""
        return self.folder / "admin.token"

    @property
    def ca(self) -> Path:
        """The private CA's certificate, which clients trust."""
        return self.folder / "tls" / "ca.crt"

    @property
    def ca_key(self) -> Path:
        """The private CA's key, needed only to sign."""
        return self.folder / "tls" / "ca.key"

    def certificate(self, server: str) -> Path:
        """The certificate of a server: nats or api."""
        return self.folder / "tls" / f"{server}.crt"

    def key(self, server: str) -> Path:
        """The key of a server's certificate."""
        return self.folder / "tls" / f"{server}.key"

    def token(self) -> str:
        """The first admin token as text."""
        return self.admin_token.read_text().strip()

    def passwords(self) -> dict[str, str]:
        """Each service role's password."""
        return {role: self.password(role).read_text().strip() for role in SCHEMAS}

    def nats(self) -> NatsIdentities:
        """The public keys for the server's configuration."""
        return NatsIdentities(
            issuer=keys.public_key(self.account_key.read_bytes()),
            controller=keys.public_key(self.nats_seed("controller").read_bytes()),
            api=keys.public_key(self.nats_seed("api").read_bytes()),
            system=keys.public_key(self.nats_seed("system").read_bytes()),
        )


def make_identities(folder: Path, names: Iterable[str] = ()) -> Identities:
    """Make the missing files; none is overwritten. ``names`` go into the server certificates.

    Raises CannotKeep.
    """
    identities = Identities(make_private_folder(folder))
    for part in ("nats", "postgres", "tls"):
        make_private_folder(folder / part)
    keep_once(identities.account_key, _line(keys.new_account_seed))
    for user in ("controller", "api", "system"):
        keep_once(identities.nats_seed(user), _line(keys.new_user_seed))
    for role in (*SCHEMAS, "postgres"):
        keep_once(identities.password(role), _line(keys.new_password))
    keep_once(identities.sealing_key, _line(keys.new_sealing_key))
    keep_once(identities.admin_token, _line(keys.new_token))
    _make_certificates(identities, server_names(names))
    return identities


def server_names(names: Iterable[str]) -> list[str]:
    """The names of the servers: the given names, this host's, the compose services', loopback."""
    return list(dict.fromkeys([*names, socket.gethostname(), "nats", "api", *BASE_NAMES]))


def _make_certificates(identities: Identities, names: list[str]) -> None:
    servers = ("nats", "api")
    wanted = [identities.ca_key, identities.ca, *(identities.key(s) for s in servers)]
    if all(path.exists() for path in (*wanted, *(identities.certificate(s) for s in servers))):
        return  # without loading the cryptography library: a warm start is fast
    from proctor_cli.init import certificates

    ca_key = keep_once(identities.ca_key, certificates.new_key)
    ca = keep_once(identities.ca, lambda: certificates.new_ca(ca_key))
    for server in servers:
        key = keep_once(identities.key(server), certificates.new_key)
        keep_once(
            identities.certificate(server),
            lambda key=key: certificates.new_server_certificate(ca_key, ca, key, names),  # type: ignore[misc]
        )


def _line(make: Callable[[], str]) -> Callable[[], str]:
    return lambda: make() + "\n"
