"""The settings files that the launcher writes."""

import tomllib
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proctor_cli.local.settings_files import agent_settings, as_toml
from proctor_cli.local.target import SshTarget

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
SCALAR = TEXT | st.booleans() | st.integers(-(2**63), 2**63 - 1)
TABLE = st.recursive(
    st.dictionaries(TEXT, SCALAR | st.lists(SCALAR, max_size=3), max_size=4),
    lambda inner: st.dictionaries(TEXT, inner | SCALAR, max_size=3),
    max_leaves=8,
)


@given(TABLE)
def test_what_is_written_is_what_is_read(table: dict[str, Any]) -> None:
    assert tomllib.loads(as_toml(table)) == table


def test_an_agent_has_one_target_by_default() -> None:
    target = SshTarget(2222, "me", Path("/d/ssh/client_key"), Path("/d/ssh/known_hosts"))
    text = as_toml(
        agent_settings(host="local-1", data=Path("/d/a"), join_url="http://h", nats="nats://n", target=target)
    )
    settings = tomllib.loads(text)
    assert settings["targets"][settings["default_target"]] == {
        "host": "127.0.0.1",
        "port": 2222,
        "user": "me",
        "key_file": "/d/ssh/client_key",
        "known_hosts_file": "/d/ssh/known_hosts",
    }
