"""What a deployment derives from the files of ``proctor init``: the server's configuration, the roles' SQL."""

from pathlib import PurePath

from proctor_cli.init.files import replace
from proctor_cli.init.identity import Identities
from proctor_cli.init.nats_conf import NatsTls, nats_server_conf
from proctor_cli.init.roles import roles_sql


def write_derived(identities: Identities, *, listen: str, store: str, certificates: PurePath | None = None) -> None:
    """Write ``nats/nats-server.conf`` and ``postgres/roles.sql`` (0600). Raises CannotKeep."""
    folder = certificates or identities.folder.resolve() / "tls"
    conf = nats_server_conf(
        identities.nats(),
        listen=listen,
        store=PurePath(store),
        tls=NatsTls(folder / "nats.crt", folder / "nats.key"),
    )
    replace(identities.folder / "nats" / "nats-server.conf", conf)
    statements = roles_sql(identities.passwords())
    replace(identities.folder / "postgres" / "roles.sql", "".join(f"{line};\n" for line in statements))
