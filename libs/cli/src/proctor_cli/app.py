"""The typer app: which commands there are, the global options, and how a fault becomes one line and an exit code."""

import importlib
import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from proctor_cli.faults import CommandFault, Refused
from proctor_cli.render import talk
from proctor_cli.services import SERVICES

LOCAL = ("proctor_cli.local.command", "proctor_cli.init.command")
CLIENT = (
    "proctor_cli.commands.submit",
    "proctor_cli.commands.runs",
    "proctor_cli.commands.verbs",
    "proctor_cli.commands.artefacts",
    "proctor_cli.commands.junit",
    "proctor_cli.commands.plans",
    "proctor_cli.commands.schedules",
    "proctor_cli.commands.agents",
    "proctor_cli.commands.pools",
    "proctor_cli.commands.volumes",
    "proctor_cli.commands.vnfps",
    "proctor_cli.commands.tokens",
    "proctor_cli.commands.results",
)
LOCAL_WORDS = frozenset({"up", "init", "demo"})
SUBMITTING = frozenset({"case", "run"})
EXAMPLES = """Examples:

proctor up --agents 2 · proctor run examples/smoke.yaml · proctor case local-1 linux_system.run_shell command=uptime ·
proctor logs -f RUN · proctor agents enroll host-7 --group lab-a"""


def run_app(words: Sequence[str]) -> int:
    """Run one command; returns its exit code. A fault is shown on standard error in one line, without a traceback
    (``PROCTOR_TRACEBACK=1`` shows it).
    """
    if sys.stdout is None:
        talk("proctor: standard output is closed")
        return 3
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A log may contain characters that the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = _run(words)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone (`proctor runs | head`).
        _close_standard_output()
        return 1
    except OSError as fault:
        about = f"{fault.filename}: " if fault.filename else "cannot write: "
        talk(f"proctor: {about}{fault.strerror or fault}")
        _close_standard_output()
        return 3
    except Exception as fault:
        if os.environ.get("PROCTOR_TRACEBACK"):
            raise
        talk(f"proctor: internal fault ({type(fault).__name__}); PROCTOR_TRACEBACK=1 shows where")
        return 3
    return code


def _run(words: Sequence[str]) -> int:
    # The launcher must start fast: it does not load what the client commands need.
    modules = LOCAL if words and words[0] in LOCAL_WORDS else LOCAL + CLIENT
    app = build_app(modules)
    try:
        app(args=list(words), prog_name="proctor")
    except SystemExit as ended:
        cause = getattr(ended.__context__, "__cause__", None)
        if isinstance(cause, KeyboardInterrupt) and SUBMITTING.intersection(words):
            # A command that submits handles Ctrl-C itself; this one came before it began.
            print("proctor: stopped before anything was started", file=sys.stderr)
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except CommandFault as fault:
        lines = fault.lines() if isinstance(fault, Refused) else [str(fault)]
        for line in lines:
            talk(f"proctor: {line}")
        return fault.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _close_standard_output() -> None:
    """Make sure that nothing more is written there, not even at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def build_app(modules: Sequence[str]) -> typer.Typer:
    """An app with the commands of the modules; each of them has ``register(app)``."""
    app = typer.Typer(
        name="proctor",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog=EXAMPLES,
    )
    app.callback()(global_options)
    for module in modules:
        importlib.import_module(module).register(app)
    for service, summary in SERVICES.items():
        # Only for --help: main() starts services before it comes here.
        app.command(name=service, help=f"Start {summary} (--config FILE).")(_service_stands_first)
    return app


def _version(on: bool) -> None:
    if on:
        print(f"proctor {version('proctor')}")
        raise typer.Exit


def global_options(
    url: Annotated[str | None, typer.Option("--url", envvar="PROCTOR_URL", help="the api's address")] = None,
    token_file: Annotated[Path | None, typer.Option("--token-file", help="a file that holds the token")] = None,
    show_version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_version)] = False,
) -> None:
    """Run test plans on a fleet of hosts and watch their logs live.

    PROCTOR_URL and PROCTOR_TOKEN select the system to use; without them it is the local one of `proctor up`.
    """
    if url is not None or token_file is not None:
        from proctor_cli.options import set_api_options

        set_api_options(url, token_file)


def _service_stands_first() -> None:
    print("proctor: api, controller and agent must be the first word: proctor api --config FILE", file=sys.stderr)
    raise typer.Exit(2)
