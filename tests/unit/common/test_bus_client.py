"""The NATS client's private members that the bus leans on: its own unsubscribe throws away what waits."""

import inspect
import re
from importlib.metadata import version

from nats.aio.client import Client
from nats.aio.subscription import Subscription

from proctor_common.bus import connection

USED = {
    "Client._send_unsubscribe": hasattr(Client, "_send_unsubscribe"),
    "Subscription._id": re.search(r"\bself\._id\b", inspect.getsource(Subscription)) is not None,
    "Subscription._pending_queue": re.search(r"\bself\._pending_queue\b", inspect.getsource(Subscription)) is not None,
}


def test_the_client_has_the_private_members_that_unsubscribe_uses() -> None:
    gone = [name for name, there in USED.items() if not there]
    assert not gone, f"nats-py {version('nats-py')} has no {', '.join(gone)}: write Connection.unsubscribe anew for it"
    assert list(inspect.signature(Client._send_unsubscribe).parameters)[:2] == ["self", "sid"]


def test_no_other_private_member_of_the_client_is_used() -> None:
    source = inspect.getsource(connection)
    found = set(re.findall(r"\b(?:self\._client|subscription)\.(_\w+)", source))
    assert found == {name.partition(".")[2] for name in USED}
