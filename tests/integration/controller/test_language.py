"""The language of plans on a real database and bus: what is written is what a command gets."""

from typing import Any

from proctor_common.ids import new_id
from proctor_common.states import StepResult
from proctor_controller.engine.engine import Engine
from support.engine import FakeAgent, call, until_finished
from support.steps import steps_of
from unit.controller.test_plan_language import plan


async def test_numbers_arrive_as_they_were_written(engine: Engine, agent: FakeAgent) -> None:
    agent.ends = StepResult.PASSED
    text = plan("""\
parameters:
  v: {type: number, default: 1.10}
  pin: {type: number, hidden: true}
  all: {type: list, default: [3.9, 3.10]}
outputs: {v: "${{ params.v }}"}
steps:
  a:
    uses: shell.run
    runs_on: {host: h1}
    matrix: {py: [3.1, 3.10]}
    env: {PY: "${{ matrix.py }}", V: "v${{ params.v }}", PIN: "${{ params.pin }}", ALL: "${{ join(params.all, ' ') }}"}
    with: {command: x, args: ["${{ matrix.py }}", 0755, "${{ string(params.v + 1.0) }}"]}
    outputs: {py: "${{ matrix.py }}"}
  b:
    uses: shell.run
    runs_on: {host: h1}
    with: {command: x, args: ["${{ steps.a.outputs.py[1] }}", "${{ steps.a.outputs.py }}"]}
""")
    run = await call(engine, "run.submit", run=new_id(), plan=text, parameters={"pin": "0042"})
    view = await until_finished(engine, run["id"])
    assert view["result"] == "passed", view
    assert view["parameters"]["v"] == 1.1
    assert set(await steps_of(engine, run["id"])) == {"a[py=3.1]", "a[py=3.10]", "b"}
    orders: dict[Any, Any] = {order.env.get("PY"): order for order in agent.started}
    assert set(orders) == {"3.1", "3.10", None}
    assert orders["3.10"].env == {"PY": "3.10", "V": "v1.10", "PIN": "0042", "ALL": "3.9 3.10"}
    assert orders["3.10"].parameters["args"] == ["3.10", "0755", "2.1"]
    assert orders[None].parameters["args"] == ["3.10", "3.1", "3.10"]


async def test_a_matrix_without_a_cell_is_skipped_and_a_step_is_read_by_its_host(
    engine: Engine, agent: FakeAgent
) -> None:
    agent.ends = StepResult.PASSED
    text = plan("""\
parameters: {sites: {type: list, default: []}}
steps:
  none:
    uses: shell.run
    runs_on: {host: "${{ matrix.site }}"}
    matrix: {site: "${{ params.sites }}"}
    with: {command: x}
    outputs: {o: 1}
  build:
    uses: shell.run
    runs_on: {host: h1}
    depends_on: [none]
    matrix: {text: ["a\\nb"]}
    with: {command: x, args: ["${{ matrix.text }}"]}
    outputs: {path: "${{ result.exit_code }}"}
  test:
    uses: shell.run
    runs_on: {host: h1}
    with: {command: x, args: ["p ${{ steps.build.by_host[host].outputs.path }} ${{ size(steps.none.outputs.o) }}"]}
""")
    run = await call(engine, "run.submit", run=new_id(), plan=text)
    view = await until_finished(engine, run["id"])
    steps = await steps_of(engine, run["id"])
    assert view["result"] == "passed", steps
    assert (steps["none[no cell]"]["result"], steps["none[no cell]"]["reason"]) == ("skipped", "the matrix has no cell")
    assert set(steps) == {"none[no cell]", "build[text=a\\nb]", "test"}
    args = {order.step_name: order.parameters["args"] for order in agent.started}
    assert args["build"] == ["a\nb"]
    assert args["test"][0].endswith(" 0")
