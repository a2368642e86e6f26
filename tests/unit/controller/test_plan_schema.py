"""The published JSON Schema: what the code makes of it, and no other than what the reader takes."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from proctor_controller.domain.documents.tree import Document
from proctor_controller.domain.documents.yaml_text import read_text
from proctor_controller.domain.plan import BadPlan, read_plan
from proctor_controller.domain.plan import document as whole
from proctor_controller.domain.plan.document import examine_plan
from proctor_controller.domain.plan.schema import plan_schema
from unit.controller.plans import EVERYTHING

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "testplan.schema.json"
EXAMPLES = sorted(path for path in (ROOT / "examples").rglob("*.yaml"))
VALIDATOR = Draft202012Validator(plan_schema())
WRITE = """.venv/bin/python -c 'import json; from proctor_controller.domain.plan.document import examine_plan
from proctor_controller.domain.plan.schema import plan_schema
print(json.dumps(plan_schema(), indent=2, ensure_ascii=False))' > docs/testplan.schema.json"""


def test_the_committed_schema_is_that_of_the_code() -> None:
    assert json.loads(PAGE.read_text()) == plan_schema(), f"write it anew: {WRITE}"
    Draft202012Validator.check_schema(plan_schema())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_fit_it_and_are_plans(path: Path) -> None:
    document = read_text(path.read_text())
    assert [error.message for error in VALIDATOR.iter_errors(document.value)] == []
    read_plan(document)


BLOCKS = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs" / "test-plans.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", BLOCKS, ids=lambda text: text.partition("\nname: ")[2].partition("\n")[0])
def test_what_the_documentation_shows_is_a_plan(text: str) -> None:
    document = read_text(text)
    assert [error.message for error in VALIDATOR.iter_errors(document.value)] == []
    read_plan(document, {})


def test_the_plan_with_everything_fits_it() -> None:
    assert [error.message for error in VALIDATOR.iter_errors(read_text(EVERYTHING).value)] == []


def members(schema: dict[str, Any], found: dict[str, set[str]]) -> dict[str, set[str]]:
    """The properties of every object of the schema that takes no others, by where it stands."""
    todo: list[tuple[str, Any]] = [("", schema)]
    while todo:
        path, part = todo.pop()
        if isinstance(part, dict):
            if part.get("additionalProperties") is False and "properties" in part:
                found[path] = set(part["properties"])
            todo += [(f"{path}/{name}", each) for name, each in part.items()]
        elif isinstance(part, list):
            todo += [(f"{path}/{index}", each) for index, each in enumerate(part)]
    return found


def test_a_member_that_the_schema_does_not_know_the_reader_does_not_know_either() -> None:
    """And the other way round: one more member anywhere is refused by both."""
    plan = read_text(EVERYTHING).value
    for path in (
        (), ("parameters", "image"), ("hosts", "dut"), ("volumes", "data"), ("concurrency",), ("timeouts",),
        ("defaults",), ("steps", "build"), ("steps", "deploy", "retry"), ("steps", "deploy", "rollback"),
        ("steps", "smoke", "strategy"), ("steps", "smoke", "expect"), ("steps", "smoke", "record"),
        ("steps", "approve"), ("steps", "approve", "gate"), ("steps", "soak"), ("on_failure", 0), ("always", 0),
        ("hold_on_failure",),
    ):  # fmt: skip
        changed = copy.deepcopy(plan)
        part: Any = changed
        for name in path:
            part = part[name]
        part["stray"] = 1
        assert list(VALIDATOR.iter_errors(changed)), path
        with pytest.raises(BadPlan) as refused:
            read_plan(Document(changed))
        assert [fault["code"] for fault in refused.value.faults] == ["unknown_member"], path
    assert members(plan_schema(), {})[""] == set(whole.MEMBERS)


WRONG: tuple[Any, ...] = (None, True, -1, 1.5, 100_000, "", "a b", "1s", "${{ params.image }}", [], [1], {}, {"a": 1})
# What a schema cannot say: what names mean, what expressions come to, and what hangs on other members.
UNSAID = re.compile(
    r"there is no (?!member .* here)|has no |there is case, site|cannot be read|expression|hidden|cell|give case, site"
    r"|must have at most|must be (at most|one of \"|.* more than)|stored plan"
)

FORM = re.compile("must match|must be 1 to 63|must be an http or https")


def changed(value: Any, path: tuple[str | int, ...], by: Any) -> Any:
    if not path:
        return by
    copied = copy.copy(value)
    copied[path[0]] = changed(value[path[0]], path[1:], by)
    return copied


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in pairs:
        yield (*path, name)
        yield from places(part, (*path, name))


def test_the_schema_and_the_reader_take_the_same_plans() -> None:
    """Something else in each place of a plan in turn: what the reader takes the schema takes; what the reader refuses
    the schema refuses too, as far as it can.
    """
    whole_plan = read_text(EVERYTHING).value
    wrong: list[str] = []
    taken = refused = 0
    for number, (path, value) in enumerate((path, value) for path in places(whole_plan) for value in WRONG):
        if number % 5:
            continue
        document = changed(whole_plan, path, value)
        faults = examine_plan(Document(document), {"token": "x"})[1].all()
        if not faults:
            taken += 1
            if not VALIDATOR.is_valid(document):
                wrong.append(f"{path} {value!r}: the schema alone refuses it")
        elif (
            "default" not in path
            and "${{" not in str(value)
            and not any(UNSAID.search(fault["message"]) for fault in faults)
            # Which text a number is written as no schema can say.
            and (isinstance(value, str) or not any(FORM.search(fault["message"]) for fault in faults))
        ):
            refused += 1
            if VALIDATOR.is_valid(document):
                wrong.append(f"{path} {value!r}: the schema takes it, the reader says {faults[0]['message']}")
    assert wrong == []
    assert min(taken, refused) > 60
