"""How a refusal is told: each fault with its place, and no place twice; what it means for the exit code."""

import pytest
from typer.testing import CliRunner

from proctor_cli.app import CLIENT, build_app
from proctor_cli.faults import Refused


def test_a_fault_is_told_with_its_place_once() -> None:
    errors: list[dict[str, object]] = [
        {"path": "role", "message": "role: not known"},
        {"path": "query.state", "message": "state: not known"},
        {"path": "parameters.command", "message": "must be of type string"},
    ]
    assert Refused(422, "invalid", "x", errors).lines() == [
        "role: not known",
        "state: not known",
        "parameters.command: must be of type string",
    ]


CODES = [
    (400, 2, 2),
    (401, 3, 3),
    (403, 3, 3),
    (404, 2, 1),
    (409, 2, 1),
    (413, 2, 1),
    (422, 2, 2),
    (429, 3, 3),
    (503, 3, 3),
]


@pytest.mark.parametrize(("status", "submitting", "otherwise"), CODES)
def test_a_refused_submission_is_2_as_a_wrong_option_is(status: int, submitting: int, otherwise: int) -> None:
    assert Refused(status, "x", "x", starting=True).exit_code == submitting
    assert Refused(status, "x", "x").exit_code == otherwise


def test_an_unknown_step_is_a_wrong_option() -> None:
    assert Refused(404, "not_found", "x", what="step").exit_code == 2


HELPED = ["agents", "groups", "token"]
HELPED += [f"agents {verb}" for verb in ("show", "enroll", "drain", "undrain", "release", "remove")]
HELPED += [f"groups {verb}" for verb in ("create", "delete", "add", "remove")]
HELPED += ["junit", "show"]
HELPED += [f"token {verb}" for verb in ("create", "list", "revoke")]


def test_the_help_of_each_command_has_an_example() -> None:
    app, runner = build_app(CLIENT), CliRunner()
    for words in HELPED:
        assert f"Example: proctor {words}" in runner.invoke(app, [*words.split(), "--help"]).output, words
