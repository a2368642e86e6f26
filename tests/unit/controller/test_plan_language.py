# ruff: noqa: E501 - a case of a table stays on its line
"""The language of test plans: what each member means, and what is wrong where, with a hint."""

import time
from typing import Any

import pytest

from proctor_common.errors import Fault
from proctor_controller.domain.documents.yaml_text import read_text
from proctor_controller.domain.hosts.requirements import Rollback, WhenFull
from proctor_controller.domain.plan import BadPlan, Plan, PlanStep, read_plan
from proctor_controller.domain.runs.step import Condition, Phase, StepKind
from proctor_controller.domain.runs.step_rules import Gate, NestedPlan
from unit.controller.plans import EVERYTHING

GIVEN = {"token": "s3cret"}
STEP = "  a: {uses: p.m, runs_on: {host: h}}\n"


def read(text: str, given: dict[str, Any] | None = None) -> Plan:
    return read_plan(read_text(text), given)


def plan(body: str) -> str:
    return f'testplan_version: "2026-12-01"\nname: x\n{body}'


def faults(body: str, given: dict[str, Any] | None = None) -> list[Fault]:
    try:
        read(plan(body), given)
    except BadPlan as bad:
        return bad.faults
    return []


def named(found: Plan) -> dict[str, PlanStep]:
    return {step.name: step for step in found.calls()}


def test_the_plan_with_everything() -> None:
    found = read(EVERYTHING, GIVEN)
    steps = named(found)
    wants = found.wants

    assert list(steps) == [
        "build", "deploy", "smoke", "approve", "soak", "rollback.deploy", "on_failure[0]", "always[0]",
    ]  # fmt: skip
    assert found.values == {"image": "vnf-1.4", "sites": ["a", "b"], "token": "s3cret"}
    assert (set(found.hidden), found.run_timeout_s) == ({"token"}, 7200.0)
    assert [(role.name, role.count, role.exclusive) for role in wants.roles] == [
        ("builder", 1, False),
        ("dut", 2, True),
    ]
    assert wants.concurrency is not None
    assert (wants.concurrency.key, wants.concurrency.when_full) == ("vnf-vnf-1.4", WhenFull.QUEUE)
    assert (wants.rollback, wants.queue_s, wants.cleanup_s) == (Rollback.ON_FAILURE, 86_400.0, 300.0)
    assert wants.hold is not None
    assert (wants.hold.roles, wants.hold.for_s) == (("dut",), 7200.0)
    assert wants.outputs_refs == ("build",)

    build, deploy, smoke = steps["build"], steps["deploy"], steps["smoke"]
    assert (build.role, build.role_index, build.each) == ("builder", 0, False)
    assert build.rules is not None
    assert build.rules.secrets == {"KEY": "lab-key"}
    assert (deploy.role, deploy.each, deploy.depends_on) == ("dut", True, (("build", Condition.SUCCEEDED),))
    assert steps["rollback.deploy"].phase is Phase.ROLLBACK
    assert smoke.cells == (
        {"case": "vping", "site": "a"},
        {"case": "vping", "site": "b"},
        {"case": "tempest", "site": "a"},
    )
    assert (smoke.max_parallel, smoke.fail_fast) == (4, False)
    assert smoke.rules is not None
    assert smoke.rules.condition == 'params.image != "none"'
    assert smoke.rules.expect == {"kind": "qmp_error", "class": "GenericError", "contains": "no medium"}
    assert smoke.rules.artefacts == ("*.xml",)
    assert (steps["approve"].kind, steps["approve"].timeout_s) == (StepKind.GATE, 43_200.0)
    assert steps["approve"].rules is not None
    assert steps["approve"].rules.gate == Gate(("admin",), 43_200.0)
    assert steps["soak"].rules is not None
    assert steps["soak"].rules.child == NestedPlan("soak-plan", {"image": "${{ params.image }}"})


def test_a_reference_makes_an_edge_and_an_explicit_condition_stays() -> None:
    found = read(
        plan(
            """steps:
  a: {uses: p.m, runs_on: {host: h}, outputs: {x: 1}}
  b: {uses: p.m, runs_on: {host: h}, env: {X: "${{ steps.a.outputs.x }}"}}
  c: {uses: p.m, runs_on: {host: h}, if: "steps.a.result.exit_code == 0", depends_on: {a: completed}}
  d: {uses: p.m, runs_on: {host: h}, outputs: {h: "${{ steps.b.hosts[0] }}"}}
"""
        )
    )
    assert {step.name: dict(step.depends_on) for step in found.steps} == {
        "a": {},
        "b": {"a": Condition.SUCCEEDED},
        "c": {"a": Condition.COMPLETED},
        "d": {"b": Condition.SUCCEEDED},
    }


def test_heats_maps_are_the_same_as_expressions() -> None:
    found = read(
        plan(
            """parameters: {image: {type: string, default: i}, sites: {type: list, default: [a]}}
steps:
  a: {uses: p.m, runs_on: {host: h}, outputs: {x-y: 1}}
  b:
    uses: p.m
    runs_on: {host: h}
    with:
      one: {get_param: image}
      two: {get_param: [sites, 0]}
      three: {get_attr: [a, x-y]}
      four: {str_replace: {template: "run IMG on S", params: {IMG: {get_param: image}, S: {get_attr: [a, hosts, 0]}}}}
      five: {list_join: [", ", [x, {get_param: image}], {get_param: sites}]}
"""
        )
    )
    (_, step) = found.steps
    assert step.parameters == {
        "one": "${{ params.image }}",
        "two": "${{ params.sites[0] }}",
        "three": '${{ steps.a.outputs["x-y"] }}',
        "four": "run ${{ params.image }} on ${{ steps.a.hosts[0] }}",
        "five": 'x, ${{ params.image }}, ${{ join(params.sites, ", ") }}',
    }
    assert step.depends_on == (("a", Condition.SUCCEEDED),)


def test_what_hangs_on_parameters_is_known_at_submission() -> None:
    text = plan(
        """parameters: {host: {type: string}, n: {type: number, default: 2}, wait: {type: string, default: 5m}}
hosts: {dut: {group: "lab-${{ params.host }}", count: "${{ params.n }}"}}
timeouts: {run: "${{ params.wait }}"}
steps:
  a: {uses: p.m, runs_on: {host: {get_param: host}}, timeout: "${{ params.wait }}"}
  b: {uses: p.m, runs_on: "dut[${{ params.n - 1 }}]", matrix: {site: "${{ [params.host] }}"}}
"""
    )
    found = read(text, {"host": "h9"})
    assert (found.steps[0].place.host, found.steps[0].timeout_s, found.run_timeout_s) == ("h9", 300.0, 300.0)
    assert (found.wants.roles[0].group, found.wants.roles[0].count) == ("lab-h9", 2)
    assert (found.steps[1].role_index, found.steps[1].cells) == (1, ({"site": "h9"},))
    # Where nobody gives a value now, what hangs on it is not checked.
    counted = text.replace(", default: 2", "").replace("default: 5m", 'default: "90"')
    assert read(counted, {"host": "h9", "n": 3}).run_timeout_s == 90.0
    assert read(counted.replace('"dut[${{ params.n - 1 }}]"', '"dut[4]"')).steps[1].role_index == 0
    assert read(text).steps[1].cells is None


FAULTS: list[tuple[str, str, str, str]] = [
    # (body, path, code, part of the message)
    ("steps:\n  a: {uses: p.m, runs_on: dut}\nhosts: {dot: {group: g}}\n", "steps.a.runs_on", "unknown_name", "did you mean dot?"),
    ("steps:\n  a: {uses: p.m, runs_on: 'dut[2]'}\nhosts: {dut: {group: g, count: 2}}\n", "steps.a.runs_on", "invalid", "dut[1]"),
    ("steps:\n  a: {uses: p.m, runs_on: 'each dut[0]'}\nhosts: {dut: {group: g}}\n", "steps.a.runs_on", "invalid", "each role"),
    ("steps:\n  a: {uses: p.m}\n", "steps.a", "missing", "runs_on"),
    ("steps:\n  a: {runs_on: {host: h}}\n", "steps.a", "missing", "uses"),
    ("steps:\n  a: {uses: p.m, gate: {}, runs_on: {host: h}}\n", "steps.a.gate", "invalid", "one of uses, gate and plan"),
    ("steps:\n  a: {gate: {}, with: {x: 1}}\n", "steps.a.with", "unknown_member", "no member"),
    ("steps:\n  a: {gate: {roles: [root]}}\n", "steps.a.gate.roles[0]", "invalid", "viewer, runner, admin"),
    ("steps:\n  a: {plan: a b}\n", "steps.a.plan", "invalid", "stored plan"),
    (f"hosts: {{dut: {{}}}}\nsteps:\n{STEP}", "hosts.dut", "missing", "group"),
    (f"hosts: {{dut: {{host: h, count: 2}}}}\nsteps:\n{STEP}", "hosts.dut.count", "invalid", "one host"),
    (f"volumes: {{v: {{pool: prefer}}}}\nsteps:\n{STEP}", "volumes.v", "missing", "type"),
    (f"concurrency: {{max: 1}}\nsteps:\n{STEP}", "concurrency", "missing", "group"),
    (f"rollback: sometimes\nsteps:\n{STEP}", "rollback", "invalid", "never, on_failure"),
    (f"hold_on_failure: {{hosts: [dut], for: 1h}}\nsteps:\n{STEP}", "hold_on_failure.hosts[0]", "unknown_name", "dut"),
    (f"webhook: {{url: 'ftp://x'}}\nsteps:\n{STEP}", "webhook.url", "invalid", "http"),
    (f"webhook: {{url: 'https://u:p@x'}}\nsteps:\n{STEP}", "webhook.url", "invalid", "password"),
    (f"always: [{{uses: p.m}}]\nsteps:\n{STEP}", "always[0]", "missing", "runs_on"),
    (f"outputs: {{x: '${{{{ steps.b.outputs.y }}}}'}}\nsteps:\n{STEP}", "outputs.x", "unknown_name", "no step 'b'"),
    (f"outputs: {{x: '${{{{ result }}}}'}}\nsteps:\n{STEP}", "outputs.x", "unknown_name", "result cannot be read here"),
    (f"outputs: {{x: '${{{{ steps.a.outputs.y }}}}'}}\nsteps:\n{STEP}", "outputs.x", "unknown_name", "no output 'y'"),
    (f"outputs: {{x: '${{{{ steps.a.output }}}}'}}\nsteps:\n{STEP}", "outputs.x", "unknown_name", "did you mean outputs?"),
    ("hosts: {dut: {group: g, count: 2}}\nsteps:\n  a: {uses: p.m, runs_on: dut, if: 'hosts.dut[1].hots != \"\"'}\n", "steps.a.if", "unknown_name", "did you mean host?"),
    ("hosts: {dut: {group: g, count: 2}}\nsteps:\n  a: {uses: p.m, runs_on: dut, if: 'hosts.dut[2].host != \"\"'}\n", "steps.a.if", "unknown_name", "the last one is hosts.dut[1]"),
    ("hosts: {dut: {group: g}}\nsteps:\n  a: {uses: p.m, runs_on: dut, if: 'hosts.dut.host != \"\"'}\n", "steps.a.if", "unknown_name", "write hosts.dut[0].host"),
    ("volumes: {v: {type: t}}\nsteps:\n  a: {uses: p.m, runs_on: {host: h}, env: {P: '${{ volumes.v[0].pth }}'}}\n", "steps.a.env.P", "unknown_name", "did you mean path?"),
    ("steps:\n  a-b: {uses: p.m, runs_on: {host: h}}\noutputs: {x: '${{ steps.a-b.result }}'}\n", "outputs.x", "expression", 'write steps["a-b"]'),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, if: 'steps.a.result == 1'}\n", "steps.a.if", "cycle", "itself"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, if: '1 +'}\n", "steps.a.if", "expression", "at 4 of the expression"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, if: 'sizes(params) > 1'}\n", "steps.a.if", "expression", "params.NAME"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, if: 'sizee([1]) > 1'}\n", "steps.a.if", "unknown_name", "no function 'sizee'; did you mean size? (at 1 of"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, with: {x: '${{ run.name.lowerAsci() }}'}}\n", "steps.a.with.x", "unknown_name", "did you mean lowerAscii?"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, with: {x: '${{ [1].text() }}'}}\n", "steps.a.with.x", "unknown_name", "write text(value)"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, with: {x: '${{ contains(run.name, \"x\") }}'}}\n", "steps.a.with.x", "unknown_name", "write value.contains("),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, outputs: {x: 1, y: '${{ self.outputs.x }}'}}\n", "steps.a.outputs.y", "unknown_name", "no output 'x' by then"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, outputs: {x: 1}, record: {project: p, case: '${{ self.outputs.y }}'}}\n", "steps.a.record.case", "unknown_name", "there is x"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, artefacts: [a, '${{ parms.x }}']}\n", "steps.a.artefacts[1]", "unknown_name", "did you mean params?"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, env: {A: {get_file: x}}}\n", "steps.a.env.A", "invalid", "Heat's functions"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, strategy: {max_parallel: null}}\n", "steps.a.strategy.max_parallel", "invalid", "1 to 10000"),
    (f"parameters: {{n: {{type: number, constraints: [{{allowed_values: [1, '2']}}]}}}}\nsteps:\n{STEP}", "parameters.n.constraints[0].allowed_values[1]", "invalid", "never this"),
    (f"parameters: {{s: {{type: string, constraints: [{{allowed_values: [[1.4], a]}}]}}}}\nsteps:\n{STEP}", "parameters.s.constraints[0].allowed_values[0]", "invalid", "never this"),
    (f"parameters: {{s: {{type: string, constraints: [{{length: {{min: -1}}}}]}}}}\nsteps:\n{STEP}", "parameters.s.constraints[0].length.min", "invalid", "0 or more"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: '${{ matrix.h }}'}, matrix: {g: [x]}}\n", "steps.a.runs_on.host", "unknown_name", "there is g"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: '${{ matrix.h }}'}}\n", "steps.a.runs_on.host", "unknown_name", "only params"),
    ("steps:\n  a: {uses: p.m, runs_on: '${{ matrix.h }}', matrix: {h: [dut, dot]}}\nhosts: {dut: {group: g}}\n", "steps.a.runs_on", "unknown_name", "did you mean dut?"),
    ("steps:\n  a: &a {uses: p.m, runs_on: {host: h}}\n  b: {<<: *a}\n", "steps.b.<<", "unknown_member", "alias"),
    (f"always: [{{gate: {{}}}}]\nsteps:\n{STEP}", "always[0].gate", "unknown_member", "only methods"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, rollback: {plan: x, with: {}}}\n", "steps.a.rollback.plan", "unknown_member", "only methods"),
    (f"webhook: {{url: ''}}\nsteps:\n{STEP}", "webhook.url", "invalid", "http"),
    (f"webhook: {{url: 3}}\nsteps:\n{STEP}", "webhook.url", "invalid", "http"),
    (f"hold_on_failure:\nsteps:\n{STEP}", "hold_on_failure", "invalid", "mapping"),
    ("defaults: {target: [3]}\nsteps:\n  a: {uses: p.m, runs_on: {host: h}}\n", "defaults.target", "invalid", "text"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}}\n  a: {gate: {}}\n", "steps.a", "duplicate_key", "repeated"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, if: 'result.x'}\n", "steps.a.if", "unknown_name", "only"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, if: 'matrix.x == 1', matrix: {y: [1]}}\n", "steps.a.if", "unknown_name", "there is y"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, with: {x: '${{ parms.y }}'}}\n", "steps.a.with.x", "unknown_name", "did you mean params?"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, with: {x: '${{ secrets.y }}'}}\n", "steps.a.with.x", "unknown_name", "no secret"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, with: {x: {get_param: [1]}}}\n", "steps.a.with.x.get_param", "expression", "takes a name"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, with: {x: {get_attr: [b, c]}}}\n", "steps.a.with.x", "unknown_name", "no step"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, matrix: {x: 3}}\n", "steps.a.matrix.x", "invalid", "must be a list"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, matrix: {x: null}}\n", "steps.a.matrix.x", "invalid", "must be a list"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, matrix: {x: [1, 1]}}\n", "steps.a.matrix", "invalid", "x=1 twice"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, matrix: {x: [1], include: [{}]}}\n", "steps.a.matrix.include[0]", "invalid", "give x"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, matrix: {x: '${{ steps.b.hosts }}'}}\n  b: {uses: p.m, runs_on: {host: h}}\n", "steps.a.matrix.x", "unknown_name", "only params"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, retry: {attempts: 0}}\n", "steps.a.retry.attempts", "invalid", "1 to 100"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, retry: {on: [error, agentlost]}}\n", "steps.a.retry.on[1]", "invalid", "did you mean agent_lost?"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, expect: {}}\n", "steps.a.expect", "missing", "error"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, record: {case: x}}\n", "steps.a.record", "missing", "project"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, rollback: {uses: p.m, runs_on: {host: h}}}\n", "steps.a.rollback.runs_on", "unknown_member", "runs_on"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, depends_on: {a: succeeded}}\n", "steps.a.depends_on.a", "cycle", "itself"),
    ("steps:\n  deploy: {uses: p.m, runs_on: {host: h}}\n  c: {uses: p.m, runs_on: {host: h}, depends_on: [deplyo]}\n", "steps.c.depends_on[0]", "unknown_step", "did you mean deploy?"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}, depends_on: [b]}\n  b: {uses: p.m, runs_on: {host: h}, with: {x: '${{ steps.a.hosts }}'}}\n", "steps.a.depends_on", "cycle", "a -> b -> a"),
    ("steps:\n  a: {uses: p.m, runs_on: {host: h}}\n  b: {uses: p.m, runs_on: {host: h}, depends_on: {a: failed}}\n  c: {uses: p.m, runs_on: {host: h}, depends_on: [a, b]}\n", "steps.c.depends_on", "unreachable", "a would have to succeed and to fail"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "path", "code", "part"), FAULTS, ids=[f"{f[1]}-{f[2]}-{n}" for n, f in enumerate(FAULTS)]
)
def test_a_fault_with_its_path_and_a_hint(body: str, path: str, code: str, part: str) -> None:
    found = faults(body, {})
    assert [(fault["path"], fault["code"]) for fault in found] == [(path, code)]
    assert part in found[0]["message"]
    assert (found[0]["line"] or 0) >= 1


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        (f"concurrency: {{max: 0, when_full: wait}}\nsteps:\n{STEP}", ["", ".max", ".when_full"]),
        (f"hold_on_failure: {{hosts: [dut], for: 2x}}\nsteps:\n{STEP}", [".hosts[0]", ".for"]),
        (f"hold_on_failure: {{for: 2x}}\nsteps:\n{STEP}", ["", ".for"]),
        (f"webhook: {{secret: '${{{{ params.nope }}}}'}}\nsteps:\n{STEP}", ["", ".secret"]),
        ("steps:\n  a: {gate: {roles: [boss]}, plan: {b: 1}, with: {}}\n", [".gate.roles[0]", ".plan", ".plan"]),
        ("steps:\n  a: {uses: p.m, runs_on: {host: h}, plan: {b: 1}, gate: {x: 1}}\n", [".plan", ".gate", ".gate.x"]),
    ],
)
def test_what_else_is_wrong_beside_a_missing_or_strange_member_is_told_too(body: str, paths: list[str]) -> None:
    root = "steps.a" if body.startswith("steps") else body.partition(":")[0]
    assert [fault["path"] for fault in faults(body, {})] == [root + path for path in paths]


HIDDEN = "parameters: {token: {type: string, hidden: true}}\nhosts: {dut: {group: g}}\n"
VALUE = "${{ params.token }}"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ("steps:\n  a: {uses: p.m, runs_on: dut, if: 'params.token == \"x\"'}\n", "steps.a.if"),
        (f"steps:\n  a: {{uses: p.m, runs_on: dut, outputs: {{x: '{VALUE}'}}}}\n", "steps.a.outputs.x"),
        ("steps:\n  a: {uses: p.m, runs_on: dut, failed_when: 'params.token == \"x\"'}\n", "steps.a.failed_when"),
        ("steps:\n  a: {uses: p.m, runs_on: dut, until: 'params.token == \"x\"'}\n", "steps.a.until"),
        (f"steps:\n  a: {{uses: p.m, runs_on: dut, record: {{project: p, case: '{VALUE}'}}}}\n", "steps.a.record.case"),
        (f"steps:\n  a: {{uses: p.m, runs_on: dut, matrix: {{x: ['{VALUE}']}}}}\n", "steps.a.matrix.x[0]"),
        (f"steps:\n  a: {{uses: p.m, runs_on: dut, artefacts: ['{VALUE}']}}\n", "steps.a.artefacts[0]"),
        (f"outputs: {{x: '{VALUE}'}}\nsteps:\n{STEP}", "outputs.x"),
        (f"concurrency: {{group: '{VALUE}'}}\nsteps:\n{STEP}", "concurrency.group"),
    ],
)
def test_a_hidden_value_is_refused_where_it_would_show(body: str, path: str) -> None:
    (fault,) = faults(HIDDEN + body, GIVEN)
    assert (fault["path"], fault["code"]) == (path, "hidden")


def test_a_matrix_that_explodes_is_never_built() -> None:
    values = ", ".join(map(str, range(100)))
    lists = ", ".join(f"k{n}: [{values}]" for n in range(20))
    (fault,) = faults(f"steps:\n  a: {{uses: p.m, runs_on: {{host: h}}, matrix: {{{lists}}}}}\n")
    assert (fault["path"], fault["code"]) == ("steps.a.matrix", "too_large")
    (fault,) = faults(f"steps:\n  a: {{uses: p.m, runs_on: {{host: h}}, matrix: {{x: [{values}], y: [1, 2, 3]}}}}\n")
    assert "300 cells" in fault["message"]


def test_work_at_submission_is_bounded_and_told_once() -> None:
    steps = "".join(
        f"  s{n}: {{uses: p.m, runs_on: {{host: h}}, timeout: '${{{{ size(params.l.map(x, x + {n})) }}}}'}}\n"
        for n in range(200)
    )
    began = time.process_time()
    (fault,) = faults(f"parameters: {{l: {{type: list, default: {[1] * 9000}}}}}\nsteps:\n{steps}")
    assert (fault["code"], "too long" in fault["message"]) == ("too_large", True)
    assert time.process_time() - began < 4, "each of them alone takes 35 ms"


def test_a_large_plan_is_read_at_once() -> None:
    steps = "".join(
        f"  s{n}:\n    uses: p.m\n    runs_on: {{host: h}}\n    with: {{x: '${{{{ params.a }}}}'}}\n"
        f"    depends_on: [{', '.join(f's{m}' for m in range(max(0, n - 20), n))}]\n"
        for n in range(1000)
    )
    found = read(plan(f"parameters: {{a: {{type: string, default: b}}}}\nsteps:\n{steps}"))
    assert len(found.steps) == 1000


def test_text_that_is_no_plan_is_told_how_a_stored_one_is_named() -> None:
    with pytest.raises(BadPlan) as refused:
        read("smoke@latest")
    assert [fault["message"] for fault in refused.value.faults] == [
        "a test plan is a mapping; a stored plan is named NAME or NAME@VERSION"
    ]


def test_a_later_version_is_refused_naming_the_known_ones() -> None:
    with pytest.raises(BadPlan) as refused:
        read(f'testplan_version: "2030-01-01"\nname: x\nsteps:\n{STEP}')
    (fault,) = refused.value.faults
    assert (fault["code"], fault["line"]) == ("unknown_version", 1)
    assert "2026-12-01" in fault["message"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://a/", "http or https"),
        ("a", "http or https"),
        ("http://", "http or https"),
        ("http://a:99999/", "http or https"),
        ("http://u:p@a/", "no user and password"),
        ("http://a/ b", "no blank"),
        ("http://a/ñ", "ASCII"),
        ("http://主机/", "ASCII"),
    ],
)
def test_a_webhook_that_could_never_be_called_is_refused(url: str, said: str) -> None:
    (fault,) = faults(f'webhook: {{url: "{url}"}}\nsteps:\n{STEP}')
    assert fault["path"] == "webhook.url"
    assert said in fault["message"]
