"""Plugins are found by entry point, published with their schemas, and one that is broken does not end the others."""

import sys
import textwrap
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from proctor_agent.loader import GROUP, LoadedPlugins, load

HEAD = "from typing import Annotated\nfrom pydantic import BaseModel, Field\nfrom proctor_agent.plugin import *\n"


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a module of foreign code and gives its entry point."""
    monkeypatch.syspath_prepend(str(tmp_path))
    count = 0

    def write(name: str, code: str, attribute: str = "It") -> EntryPoint:
        nonlocal count
        count += 1
        module = f"foreign_{abs(hash(tmp_path)) % 10**9}_{count}"
        (tmp_path / f"{module}.py").write_text(HEAD + textwrap.dedent(code))
        return EntryPoint(name, f"{module}:{attribute}", GROUP)

    yield write
    for name in [name for name in sys.modules if name.startswith("foreign_")]:
        del sys.modules[name]


GOOD = """
class It(Plugin):
    "A good one."
    description = "good"
    @method(description="adds")
    async def add(self, context, left: int, right: Annotated[int, Field(le=10, description="at most ten")] = 1): ...
"""


def only(loaded: LoadedPlugins) -> str:
    (reason,) = loaded.errors.values()
    return reason


def test_the_built_in_plugins_are_installed_and_publish_their_methods() -> None:
    loaded = load()
    assert loaded.errors == {}
    assert set(loaded.plugins) >= {"linux_system", "build_server"}
    linux = loaded.plugins["linux_system"].spec
    assert set(linux.methods) == {"run_shell", "system_information", "ping", "reset_connection"}
    assert set(loaded.plugins["build_server"].spec.methods) == {"run_shell", "system_information", "build"}
    assert all(method.description for plugin in loaded.plugins.values() for method in plugin.spec.methods.values())
    assert linux.methods["run_shell"].parameters["properties"]["args"]["x-argv"] is True
    assert linux.methods["run_shell"].parameters["required"] == ["command"]
    build = loaded.plugins["build_server"].spec.methods["build"].parameters["properties"]
    assert build["token"]["x-secret"] is True
    assert build["command"]["x-argv"] is True


def test_only_the_chosen_plugins_are_loaded() -> None:
    loaded = load(["linux_system"])
    assert list(loaded.plugins) == ["linux_system"]
    loaded = load(["linux_system", "deploy"])
    assert list(loaded.plugins) == ["linux_system"]
    assert "no such plugin is installed" in loaded.errors["deploy"]
    assert "build_server" in loaded.errors["deploy"]


def test_a_signature_becomes_a_schema(written: Any) -> None:
    loaded = load(found=[written("good", GOOD)])
    spec = loaded.plugins["good"].spec
    assert spec.description == "good"
    assert spec.methods["add"].description == "adds"
    assert spec.methods["add"].parameters == {
        "type": "object",
        "additionalProperties": False,
        "required": ["left"],
        "properties": {
            "left": {"title": "Left", "type": "integer"},
            "right": {
                "title": "Right", "type": "integer", "default": 1, "maximum": 10, "description": "at most ten"
            },
        },
    }  # fmt: skip


def test_a_model_takes_all_parameters_and_unknown_ones_are_refused(written: Any) -> None:
    code = """
    class Wanted(BaseModel):
        token: Secret | None = None
        words: Argv = []
    class It(Plugin):
        @method(description="d", name="renamed")
        async def any_name(self, context, parameters: Wanted): ...
    """
    loaded = load(found=[written("it", code)])
    assert loaded.errors == {}
    method = loaded.plugins["it"].methods["renamed"]
    assert method.takes_model
    assert method.spec.parameters["additionalProperties"] is False
    assert method.spec.parameters["properties"]["token"]["x-secret"] is True
    assert method.spec.parameters["properties"]["words"]["x-argv"] is True


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise RuntimeError('no libfoo\\nhere')", "RuntimeError: no libfoo here"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import no_such_module_at_all", "ModuleNotFoundError"),
        ("def", "SyntaxError"),
        ("other = 1", "AttributeError"),
        ("class It: pass", "not a class derived from"),
        ("It = 3", "not a class derived from"),
        ("class It(Plugin): pass", "it has no method"),
        ("class It(Plugin):\n def __init__(self, settings=None): raise OSError('disk')", "OSError: disk"),
        (
            "class It(Plugin):\n @method(description='d')\n def m(self, context): ...",
            "method m: must be an async function",
        ),
        ("class It(Plugin):\n @method(description='d')\n async def m(self): ...", "must take self and the context"),
        (
            "class It(Plugin):\n @method(description='d')\n async def m(self, context, x): ...",
            "parameter x has no type",
        ),
        (
            "class It(Plugin):\n @method(description='d')\n async def m(self, context, *x: int): ...",
            "x must be a named one",
        ),
        ("class It(Plugin):\n @method(description='d')\n async def m(self, context, x: 'Nope'): ...", "Nope"),
        ("class It(Plugin):\n @method(description='d')\n async def m(self, context, x: object()): ...", "method m: "),
        (
            "class It(Plugin):\n @method(description='d')\n async def m(self, context, x: Context): ...",
            "no JSON Schema",
        ),
        (
            "class It(Plugin):\n @method(description='d', name='a.b')\n async def m(self, context): ...",
            "letters, digits",
        ),
        (
            "class It(Plugin):\n @method(description='d' * 2000)\n async def m(self, context): ...",
            "at most 1000 characters",
        ),
        (
            "class It(Plugin):\n @method(description='d')\n"
            " async def m(self, context, x: Annotated[str, Field(pattern='(?=a)b')]): ...",
            "method m: ",
        ),
        (
            "class It(Plugin):\n @method(description='d')\n"
            " async def m(self, context, x: Annotated[str, Field(description='x' * 70000)]): ...",
            "more than 65536",
        ),
        (
            "class It(Plugin):\n @method(description='d')\n async def m(self, context, x: Annotated[str, "
            "Field(json_schema_extra={'$ref': 'https://example.org/x'})]): ...",
            "refers to the outside",
        ),
        (
            "class Inner(BaseModel):\n key: Secret\n"
            "class It(Plugin):\n @method(description='d')\n async def m(self, context, x: int, y: Inner): ...",
            "would not be sealed",
        ),
        (
            "class It(Plugin):\n @method(description='d')\n async def m(self, context, x: Secret = 'default-pw'): ...",
            "cannot be published",
        ),
        (
            "class It(Plugin): pass\nfor n in range(201):\n"
            " async def m(self, context): ...\n setattr(It, f'm{n}', method(description='d', name=f'm{n}')(m))",
            "201 methods",
        ),
    ],
)
def test_a_broken_plugin_is_reported_in_one_line_and_the_rest_live(written: Any, code: str, says: str) -> None:
    loaded = load(found=[written("broken", code), written("good", GOOD)])
    assert list(loaded.plugins) == ["good"]
    reason = only(loaded)
    assert says in reason
    assert "\n" not in reason and len(reason) <= 500
    assert "default-pw" not in reason


def test_a_name_that_two_packages_claim_is_nobodys(written: Any) -> None:
    loaded = load(found=[written("same", GOOD), written("same", GOOD)])
    assert "two installed packages claim the name" in only(loaded)


def test_a_name_that_is_no_name_is_refused(written: Any) -> None:
    assert "letters, digits" in only(load(found=[written("a-b", GOOD)]))


def test_a_plugins_own_settings_are_checked(written: Any) -> None:
    code = """
    class It(Plugin):
        class Settings(BaseModel):
            port: int = 7
        @method(description="d")
        async def m(self, context): ...
    """
    entry = written("it", code)
    (method,) = load(settings={"it": {"port": "9"}}, found=[entry]).plugins["it"].methods.values()
    assert method.function.__self__.settings.port == 9
    (method,) = load(found=[entry]).plugins["it"].methods.values()
    assert method.function.__self__.settings.port == 7
    assert "its settings: port: " in only(load(settings={"it": {"port": "x"}}, found=[entry]))
    assert "no settings of its own" in only(load(settings={"good": {"x": 1}}, found=[written("good", GOOD)]))
