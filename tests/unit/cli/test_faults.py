"""How a refusal is told: each fault with its place, and no place twice."""

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
