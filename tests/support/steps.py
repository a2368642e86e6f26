"""Plans as the engine gets them, put together by hand, and the few calls that tests of steps make again and again."""

from collections.abc import Mapping
from typing import Any

from proctor_common.ids import new_id
from proctor_controller.db.hosts.candidates import read_clock
from proctor_controller.db.session import session
from proctor_controller.domain.hosts.placement import Placement
from proctor_controller.domain.runs.step import Condition
from proctor_controller.domain.runs.step_rules import Rules
from proctor_controller.domain.runs.submission import EdgeSpec, NodeSpec, RunSpec, StepSpec
from proctor_controller.engine.engine import Engine
from support.engine import ECHO, call
from support.wait import eventually

HOST = Placement(host="h1")


def step(name: str, **fields: Any) -> StepSpec:
    """A call of `shell.run` on h1."""
    given: dict[str, Any] = {
        "id": new_id(), "node": name, "name": name, "plugin": "shell", "method": "run", "place": HOST,
        "parameters": {"command": "true"},
    }  # fmt: skip
    return StepSpec(**{**given, **fields})


def fan_out(name: str, count: int, **fields: Any) -> list[StepSpec]:
    """The instances of a step with a matrix of one number."""
    return [step(name, instance=f"n={n}", matrix={"n": n}, **fields) for n in range(count)]


def edge(text: str) -> EdgeSpec:
    """`a -> b`, or `a -> b: failed`."""
    nodes, _, condition = text.partition(": ")
    source, _, target = nodes.partition(" -> ")
    return EdgeSpec(source, target, Condition(condition or "succeeded"))


def plan(*steps: StepSpec, rules: Mapping[str, Rules] | None = None, edges: str = "", **fields: Any) -> RunSpec:
    """A run; `edges` separated by commas; `rules` and (in `nodes`) other parts of nodes by name."""
    nodes = {name: NodeSpec(name, rules=found) for name, found in (rules or {}).items()}
    nodes.update({node.name: node for node in fields.pop("nodes", ())})
    return RunSpec(
        id=new_id(),
        name="plan",
        kind="plan",
        steps=steps,
        edges=tuple(edge(text.strip()) for text in edges.split(",") if text.strip()),
        node_specs=tuple(nodes.values()),
        document=fields.pop("document", "{}"),
        **fields,
    )


def filled(template: Mapping[str, Any]) -> Rules:
    """Rules that only fill the parameters of `shell.run`."""
    return Rules(parameters=template, schema=ECHO)


async def run(engine: Engine, spec: RunSpec) -> str:
    """Submit it; its id."""
    async with session(engine.database) as db:
        await engine.submissions.submit(db, spec, await read_clock(db))
    return spec.id


async def steps_of(engine: Engine, run: str) -> dict[str, Any]:
    """The steps of a run by name (`name[instance]` where they have one)."""
    items = (await call(engine, "run.steps", run=run, limit=1000))["items"]
    return {f"{one['step']}[{one['instance']}]" if one["instance"] else one["step"]: one for one in items}


async def until_there(engine: Engine, run: str, name: str, state: str) -> Any:
    """The step once it is in the state."""

    async def there() -> Any:
        found = (await steps_of(engine, run))[name]
        assert found["state"] == state, found
        return found

    return await eventually(there, 10, f"step {name} to be {state}")
