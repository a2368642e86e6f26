"""What people hand to a command: plans' names, parameters from words, files and standard input."""

import io
from pathlib import Path

import pytest

from proctor_cli.faults import Usage
from proctor_cli.inputs import name_in, read_parameters, read_plan

NAMED = [
    ('testplan_version: "1"\nname: smoke\n', "smoke"),
    ("{name: smoke, steps: {}}", "smoke"),
    ('{"name": "smoke"}', "smoke"),
    ("\"name\" : 'smoke'  # so\n", "smoke"),
    ("steps:\n  name: inner\nname: outer\n", "outer"),
    ("? name\n: smoke\n", "smoke"),
    ("name: &n smoke\nother: *n\n", "smoke"),
    ("name: 12\n", "12"),
    ("name: [a]\n", None),
    ("a: 1\n", None),
    ('{"name": "two steps"}', None),
    ("{", None),
    ("[" * 100_000, None),
    ("", None),
]


@pytest.mark.parametrize(("plan", "name"), NAMED, ids=range(len(NAMED)))
def test_a_plans_name_in_any_spelling(plan: str, name: str | None) -> None:
    assert name_in(plan) == name


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_a_byte_order_mark_is_no_part_of_the_text(encoding: str, tmp_path: Path) -> None:
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    path = tmp_path / "plan.yaml"
    path.write_bytes((mark + "name: smöke\r\n").encode(encoding))
    assert read_plan(str(path)) == "name: smöke\n"


def test_values_from_files_and_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, numbers = tmp_path / "secret", tmp_path / "numbers.json"
    secret.write_text("s3cret \n\n")
    numbers.write_text("[1, 2]")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"typed\n")))
    words = [f"a=@{secret}", f"b:=@{numbers}", "c=@-", "d=@@home", "e=plain", 'f:="@x"']
    assert read_parameters(words) == {
        "a": "s3cret \n",
        "b": [1, 2],
        "c": "typed",
        "d": "@home",
        "e": "plain",
        "f": "@x",
    }


def test_words_stand_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "given.json"
    path.write_text('\ufeff{"image": "a", "count": 2}', encoding="utf-8")
    assert read_parameters(["image=b"], str(path)) == {"image": "b", "count": 2}


@pytest.mark.parametrize(
    ("text", "says"),
    [("[1]", "holds no JSON object"), ("nope", "is not JSON"), ("", "is not JSON"), ("[" * 100_000, "is not JSON")],
)
def test_a_file_of_parameters_that_is_none(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "given.json"
    path.write_text(text)
    with pytest.raises(Usage, match=says):
        read_parameters(None, str(path))


@pytest.mark.parametrize("word", ["=s3cret", ":=s3cret", "k:=s3cret", "k=@/no/such/s3cret-file"])
def test_no_value_stands_in_a_fault(word: str) -> None:
    with pytest.raises(Usage) as refused:
        read_parameters([word])
    assert "s3cret" not in str(refused.value).replace("/no/such/s3cret-file", "")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/full", "/proc/self/mem", "/"])
def test_what_has_no_end_or_is_no_file(device: str) -> None:
    with pytest.raises(Usage, match="cannot read the plan"):
        read_plan(device)
