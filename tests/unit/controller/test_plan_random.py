"""Plans with anything in any place: refused or run, never a crash; and the schema refuses nothing that runs."""

import copy
import random
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from proctor_controller.domain.documents.tree import Document, check_value
from proctor_controller.domain.documents.yaml_text import read_text
from proctor_controller.domain.hosts.requirements import requirements_of
from proctor_controller.domain.plan import BadPlan, read_plan
from proctor_controller.domain.plan.calls import check_call
from proctor_controller.domain.plan.compile import Birth, compile_run, find_explosion
from proctor_controller.domain.plan.schema import plan_schema
from proctor_controller.domain.runs.step_rules import rules_of
from unit.controller.plans import EVERYTHING

JUNK: list[Any] = [
    None, True, False, 0, 1, -1, 3.5, 1e300, 10**30, "", "a", "x" * 20_000, "\0", [], {}, [1], ["a"], {"a": 1},
    {"": ""}, [[[]]], "${{ params.image }}",
    "${{ params.sites }}", "${{ params.token }}", "${{ steps.build.outputs.artifact }}",
    "${{ 1/0 }}", "${{", "$${{", "${{ a", {"get_param": "image"}, {"get_param": 1}, {"get_attr": ["build", "artifact"]},
    {"str_replace": {"template": "x", "params": {"x": {"get_param": "image"}}}}, {"list_join": [",", ["a"]]},
    {"list_join": 1}, "dut", "each dut", "dut[1]", "dut[9]", "5m", "build", ["build", "build"], {"build": "failed"},
]  # fmt: skip
WORDS = ["stray", "if", "uses", "matrix", "", "steps", "runs_on", "gate", "plan"]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "command": {"type": "string"},
        "args": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}], "x-argv": True},
        "source": {"type": "string", "x-secret": True},
    },
}
VALIDATOR = Draft202012Validator(plan_schema())


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield from places(part, (*path, name))


def mutated(chance: random.Random) -> Any:
    plan = copy.deepcopy(read_text(EVERYTHING).value)
    for _ in range(chance.choice([1, 1, 2, 3])):
        path = chance.choice(list(places(plan)))
        holder: Any = plan
        for name in path[:-1]:
            holder = holder[name]
        what = chance.random()
        if what < 0.7:
            holder[path[-1]] = copy.deepcopy(chance.choice(JUNK))
        elif what < 0.85 and isinstance(holder, dict):
            holder[chance.choice(WORDS)] = copy.deepcopy(chance.choice(JUNK))
        else:
            del holder[path[-1]]
    return plan


def run(document: Any) -> None:
    check_value(document)
    plan = read_plan(Document(document), {"token": "s3cret"})
    assert [error.json_path for error in VALIDATOR.iter_errors(document)] == [], document
    if find_explosion(plan):
        return
    calls = {step.path: check_call(step, SCHEMA, plan.hidden) for step in plan.calls() if step.plugin}
    ids = count()
    spec = compile_run(plan, calls, {}, Birth("r", "n", "t", lambda work: work), lambda: str(next(ids)))
    spec.first_slice()
    assert requirements_of(spec.wants.to_json()) == spec.wants
    for node in spec.node_specs:
        assert rules_of(node.rules.to_json() if node.rules else None) == node.rules


@pytest.mark.parametrize("seed", range(4))
def test_whatever_stands_in_a_plan(seed: int, long_run: bool) -> None:
    chance = random.Random(seed)
    good = bad = 0
    for _ in range(2000 if long_run else 60):
        try:
            run(mutated(chance))
            good += 1
        except BadPlan:
            bad += 1
    assert good
    assert bad
