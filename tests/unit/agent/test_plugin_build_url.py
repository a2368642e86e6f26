"""The published schema of build's url: what holds a password is refused before a controller stores it."""

import re
from typing import Any

import pytest

from proctor_agent.loader import load


@pytest.fixture(scope="module")
def url_schema() -> Any:
    return load().plugins["build_server"].spec.methods["build"].parameters["properties"]["url"]


def _pattern(schema: Any) -> str:
    return next(str(part["pattern"]) for part in schema.get("anyOf", [schema]) if "pattern" in part)


@pytest.mark.parametrize(
    "url",
    [
        "https://u:pw@h/r",
        "https://token@h/r",
        "https://:pw@h/r",
        "ssh://git:pw@h:22/r",
        "https://a@b:pw@h/r",
        "-x",
        "ext::sh -c reboot",
    ],
)
def test_the_schema_refuses(url_schema: Any, url: str) -> None:
    assert re.search(_pattern(url_schema), url) is None


@pytest.mark.parametrize(
    "url",
    ["https://h/r", "http://127.0.0.1:8080/a/b.git?x=1", "ssh://git@h:22/r", "git@h:a/b.git", "file:///srv/r.git"],
)
def test_the_schema_takes(url_schema: Any, url: str) -> None:
    assert re.search(_pattern(url_schema), url)
