"""What the documentation shows is what there is: commands parse, files exist, links lead somewhere.

A block marked `sh` is read by a shell; every `proctor` command in it by the program's own parser, every `./justw`
and `just` word by the justfile, every path of the api by its OpenAPI document. A word in capitals or in <brackets>
stands for a value.
"""

import ast
import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from proctor_api.routes import ALL_ROUTERS, SOCKETS
from proctor_cli.app import CLIENT, LOCAL, build_app
from proctor_cli.services import SERVICES

ROOT = Path(__file__).parents[2]
PAGES = [path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md") if path.exists()]
PAGES += sorted((ROOT / "docs").rglob("*.md")) + sorted((ROOT / "deploy").rglob("*.md"))
BLOCK = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
REPOSITORY_PATH = re.compile(r"`((?:libs|services|tests|deploy|docs|examples|bench)/[^`\s]*)`")
SEPARATORS = {"&&", "||", ";", "|", "&"}
WRAPPERS = {"sudo", "exec", "time", "nohup"}


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in BLOCK.finditer(text):
            if match[2] in languages:
                indent = match[1]
                body = "".join(line.removeprefix(indent) for line in match[3].splitlines(keepends=True))
                found.append(Block(page, text.count("\n", 0, match.start()) + 2, match[2], body))
    return found


def commands(block: Block) -> Iterator[list[str]]:
    """The simple commands of a block: words without comments, wrappers, variables and redirections."""
    joined = block.text.replace("\\\n", " ")
    for line in joined.splitlines():
        lexer = shlex.shlex(re.sub(r"(?<=\s)\d(?=[<>])", "", line), posix=True, punctuation_chars=";&|<>")
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:  # a here-document or a quote over several lines: `sh -n` has read it
            continue
        command: list[str] = []
        for word in [*words, ";"]:
            if word in SEPARATORS:
                yield from ([command] if command else [])
                command = []
            elif command or not (word in WRAPPERS or re.match(r"^[A-Za-z_]\w*=", word)):
                command.append(word)


def without_redirections(words: list[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif set(word) <= {"<", ">", "&"}:
            skip = True
        else:
            kept.append(word)
    return kept


@cache
def recipes() -> frozenset[str]:
    return frozenset(re.findall(r"^([a-z]\w*)[^=\n]*:(?!=)", (ROOT / "justfile").read_text(), re.MULTILINE))


def parse_proctor(words: list[str]) -> None:
    """Parse a command line of `proctor` without running it. Raises what the parser raises."""
    words = [word for word in words if word not in {"-h", "--help", "--version"}]  # they would print
    if words and words[0] in SERVICES:
        return
    if not words:
        return
    group = get_command(build_app(LOCAL + CLIENT))
    context = group.make_context("proctor", words)
    while hasattr(group, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        if not rest:
            return
        name, group, rest = group.resolve_command(context, rest)
        context = group.make_context(name, list(rest), parent=context)


def check_command(words: list[str]) -> None:
    words = without_redirections(words)
    program = Path(words[0]).name
    if program in {"justw", "just"} and len(words) > 1 and not words[1].startswith("-"):
        assert words[1] in recipes(), f"{words[1]} is no recipe of the justfile"
        if words[1] in {"up", "demo"}:
            parse_proctor(words[1:])
    if program == "proctor":
        parse_proctor(words[1:])
    if program.startswith("."):
        assert (ROOT / words[0]).exists(), f"{words[0]} does not exist"


@pytest.mark.parametrize("block", blocks("sh", "console", "bash"), ids=str)
def test_a_shell_block_is_what_the_programs_take(block: Block) -> None:
    text = re.sub(r"<([a-z][\w -]*)>", "VALUE", block.text)
    read = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr
    faults = []
    for words in commands(Block(block.page, block.line, block.language, text)):
        try:
            check_command(words)
        except Exception as error:
            faults.append(f"{shlex.join(words)}: {getattr(error, 'message', error)}")
    assert not faults, "; ".join(faults)


READERS: dict[str, Callable[[str], object]] = {
    "json": json.loads,
    "yaml": lambda text: list(yaml.safe_load_all(text)),
    "toml": tomllib.loads,
    "python": ast.parse,
}


@pytest.mark.parametrize("block", blocks(*READERS), ids=str)
def test_an_example_is_well_formed(block: Block) -> None:
    READERS[block.language](block.text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_of_a_page_lead_somewhere(page: Path) -> None:
    text = re.sub(BLOCK, "", page.read_text())
    dead = [
        target
        for target, _ in LINK.findall(text)
        if "://" not in target and not target.startswith("mailto:") and not (page.parent / target).exists()
    ]
    named = {path: re.sub(r"\b[A-Z]{3,}\b(?=\.py)", "*", path.rstrip("/")) for path in REPOSITORY_PATH.findall(text)}
    dead += [path for path, pattern in named.items() if not any(ROOT.glob(pattern))]
    assert not dead, f"dead: {dead}"


@cache
def routes() -> list[list[str]]:
    """Path templates of the api, HTTP and websocket, in segments."""
    paths = [route.path for router in ALL_ROUTERS for route in router.routes if hasattr(route, "path")]
    return [path.strip("/").split("/") for path in (*paths, *(path for path, _ in SOCKETS))]


def is_served(path: str) -> bool:
    asked = path.split("?", maxsplit=1)[0].strip("/").split("/")
    return any(
        len(route) == len(asked)
        and all(known.startswith("{") or known == word for known, word in zip(route, asked, strict=True))
        for route in routes()
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_api_serves_the_paths_that_a_page_names(page: Path) -> None:
    text = page.read_text()
    named = re.findall(r"`(?:GET|POST|PUT|DELETE|WS) (/v[12][^`\s]*)`", text)
    named += re.findall(r"https?://[\w.:-]+(/v[12][^\s\"'`]*)", text)
    assert [path for path in named if "…" not in path and not is_served(path)] == []


def test_nothing_says_to_install_us_by_name() -> None:
    """On the public package index some of our names are somebody else's."""
    kinds = {".md", ".py", ".sh", ".toml", ".yaml"}
    sources = [path for part in ("libs", "services", "deploy") for path in (ROOT / part).rglob("*")]
    texts = {path: path.read_text() for path in (*PAGES, *sources) if path.suffix in kinds}
    by_name = re.compile(r"(pip|pipx|uvx?) (tool )?(install|run)[^\n]*[\s'\"]proctor(-\w+)?(?![\w/@-])")
    assert by_name.search("pip install 'proctor[local]'") and by_name.search("uv tool install proctor-agent")
    assert [str(path.relative_to(ROOT)) for path, text in texts.items() if by_name.search(text)] == []


def test_every_recipe_is_explained() -> None:
    lines = (ROOT / "justfile").read_text().splitlines()
    bare = [
        line
        for above, line in zip(["", *lines], lines, strict=False)
        if re.match(r"[a-z]\w*[^=]*:(?!=)", line) and not above.startswith(("#", "["))
    ]
    assert bare == []


def test_the_parser_of_this_test_refuses_what_the_program_refuses() -> None:
    parse_proctor(["runs"])
    with pytest.raises(Exception, match=r"(?i)no such (option|command)"):
        parse_proctor(["runs", "--no-such-option"])
    with pytest.raises(Exception, match=r"(?i)no such (option|command)"):
        parse_proctor(["no-such-command"])
