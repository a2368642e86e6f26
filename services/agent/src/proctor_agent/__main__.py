"""``proctor-agent``, ``python -m proctor_agent``: run the agent, or join with a one-time token."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from proctor_agent.settings import AgentSettings
from proctor_common.log_config import configure_logging
from proctor_common.service import ConfigurationError, StartError, Stop, report, run_service
from proctor_common.settings import load_settings

NAME = "agent"
EXAMPLES = """examples:
  proctor-agent join https://proctor.lab.example:8774 <token.txt
  proctor-agent run --config /etc/proctor-agent/agent.toml

Every setting may also come from the environment as PROCTOR_AGENT_<NAME>; a secret from a file as
PROCTOR_AGENT_<NAME>_FILE."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run with these arguments (None: those of the process). Returns the exit code: 0 if it was asked to end and did,
    or has joined; 1 if it cannot go on; 2 if arguments or settings are wrong.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0].startswith("--c"):
        words.insert(0, "run")
    arguments = _parser().parse_args(words)
    try:
        settings = load_settings(AgentSettings, config=arguments.config)
        configure_logging(NAME, settings.log_level)
        if arguments.word == "join":
            return _join(settings, arguments)
    except StartError as fault:
        return report(NAME, fault)
    from proctor_agent.main import run

    async def process(stop: Stop) -> None:
        await run(settings, stop)

    return run_service(NAME, process)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="proctor-agent",
        description="Runs plugin methods on this host's SSH targets and streams their logs.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"proctor-agent {version('proctor-agent')}")
    words = parser.add_subparsers(dest="word", required=True, metavar="run|join")
    run = words.add_parser("run", help="run until SIGTERM (the default)")
    join = words.add_parser("join", help="join with the token of `proctor agents enroll`, from standard input")
    for one in (run, join):
        one.add_argument("--config", type=Path, metavar="FILE", help="settings as TOML")
    join.add_argument("url", metavar="URL", help="the api's address")
    join.add_argument("--token-file", type=Path, metavar="FILE", help="read the token from a file")
    join.add_argument("--ca-file", type=Path, metavar="FILE", help="the CA that signed the api's certificate")
    return parser


def _join(settings: AgentSettings, arguments: argparse.Namespace) -> int:
    from proctor_agent.identity import join, load_identity, make_folder

    folder = make_folder(settings.data_dir)
    former = load_identity(folder)
    if former is not None:
        print(f"has joined already, as {former.host}; remove {folder} to join as another", file=sys.stderr)
        return 1
    token = _token(settings, arguments.token_file)

    def put_off(reason: str, seconds: float) -> None:
        print(f"{reason}; trying again in {seconds:.0f} s", file=sys.stderr)

    identity = asyncio.run(join(folder, arguments.url, token, arguments.ca_file or settings.join_ca_file, put_off))
    print(f"joined as {identity.host}; now start it: proctor-agent run")
    return 0


def _token(settings: AgentSettings, file: Path | None) -> str:
    """The token from the file, the settings, or standard input; never from an argument, which `ps` would show."""
    try:
        if file is not None:
            return file.read_text().strip()
    except OSError as fault:
        raise ConfigurationError(f"cannot read the token: {fault}") from None
    if settings.join_token is not None:
        return settings.join_token.get_secret_value()
    if os.isatty(0):
        print("token: ", end="", file=sys.stderr, flush=True)
    token = sys.stdin.readline().strip()
    if not token:
        raise ConfigurationError("no token on standard input (`proctor agents enroll HOST` gives one)")
    return token


if __name__ == "__main__":
    sys.exit(main())
