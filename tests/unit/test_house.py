"""Rules of the house that no linter knows: sizes, names, and where a subject may be spelled."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for part in ("libs", "services") for path in (ROOT / part).glob("*/src/**/*.py"))
TESTS = sorted(path for part in ("tests", "bench") for path in (ROOT / part).rglob("*.py"))
LONGEST_FILE = 400
LONGEST_TEST = 700
LARGEST_PACKAGE = 20
LONGEST_FUNCTION = 75
JUNK_DRAWERS = {"utils", "util", "helpers", "helper", "misc", "manager", "common"}
LEFT_UNDONE = re.compile(r"\b(TODO|FIXME|XXX)\b|NotImplementedError")


# Where a statement may stand; elsewhere only the handle of a connection or a transaction goes from hand to hand.
SQL_HOMES = re.compile(
    r"proctor_common/pg/|proctor_controller/(db|migrations)/|proctor_api/(store|catalog|migrations)/"
)
SQL_HANDLES = {"AsyncConnection", "AsyncEngine", "IntegrityError"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_source_keeps_the_rules_of_the_house(path: Path) -> None:
    text = path.read_text()
    lines = text.splitlines()
    faults = []
    if len(lines) > LONGEST_FILE:
        faults.append(f"{len(lines)} lines")
    if path.stem in JUNK_DRAWERS:
        faults.append(f"a junk drawer's name: {path.stem}")
    faults += [f"line {n}: {line.strip()}" for n, line in enumerate(lines, 1) if LEFT_UNDONE.search(line)]
    for function in functions(ast.parse(text)):
        length = (function.end_lineno or function.lineno) - function.lineno + 1
        if length > LONGEST_FUNCTION:
            faults.append(f"{function.name} has {length} lines")
    assert not faults, f"{name_of(path)}: {'; '.join(faults)}"


def test_no_file_of_tests_is_too_long() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in TESTS}
    assert {name: length for name, length in lengths.items() if length > LONGEST_TEST} == {}


def test_no_package_holds_too_many_modules() -> None:
    modules = Counter(name_of(path.parent) for path in SOURCES if path.stem != "__init__")
    assert {package: count for package, count in modules.items() if count > LARGEST_PACKAGE} == {}


def texts(tree: ast.AST) -> Iterator[str]:
    """String constants, docstrings excepted."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def test_subjects_are_spelled_in_one_module() -> None:
    spelled = {name_of(path) for path in SOURCES for text in texts(ast.parse(path.read_text())) if "proctor.v1" in text}
    assert {path for path in spelled if not path.endswith("proctor_common/subjects.py")} == set()


def test_sql_stands_in_its_homes() -> None:
    astray = []
    for path in SOURCES:
        if SQL_HOMES.search(name_of(path)):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if any(module.split(".")[0] in {"sqlalchemy", "asyncpg", "alembic"} for module in modules):
                names = {alias.name for alias in node.names} if isinstance(node, ast.ImportFrom) else set(modules)
                astray += [f"{name_of(path)}:{node.lineno}: {name}" for name in names - SQL_HANDLES]
    assert astray == []


def test_no_committed_pin_names_an_index() -> None:
    for lock in ROOT.glob("requirements*.lock"):
        assert re.findall(r"^--.*|.*://.*", lock.read_text(), re.MULTILINE) == []
