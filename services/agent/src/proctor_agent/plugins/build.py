"""``build``: a git checkout or an existing folder, a command in it, and what it made."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field, WithJsonSchema, model_validator

from proctor_agent.artefacts import Artefact, find_artefacts
from proctor_agent.plugin import Argv, Completed, Context, Failed, MethodFault, Secret
from proctor_agent.plugins.shell import NOT_FOUND, Env, NoNul

DESCRIPTION = (
    "check out a git repository (url, ref) or take an existing folder (directory), run command in it, and list what "
    "the artefact patterns match with size and SHA-256; exit code 0 passes, if every pattern matches something"
)
_REF = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._/+@-]{0,254}\Z")
_SCP = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}@[A-Za-z0-9][A-Za-z0-9.-]{0,252}:[^\s:][^\s]{0,1000}\Z")
_URL = re.compile(r"^[a-z]{1,20}://[!-~]{1,2000}\Z")

_WORKSPACE = """
set -e
mkdir -p -- "$1"
cd -- "$1"
find . -mindepth 1 -maxdepth 1 -type d -mtime "+$3" -exec rm -rf -- {} + 2>/dev/null || true
umask 077
mkdir -- "$2"
cd -- "$2"
pwd -P
"""


@dataclass(frozen=True, slots=True)
class WorkspaceSettings:
    """The plugin's settings: folder of the workspaces, permitted protocols, days to keep."""

    workspaces: str
    protocols: Sequence[str]
    keep_days: int


def _url(text: str) -> str:
    """A URL of git: ``protocol://…`` or ``user@host:path``. No password: process arguments would show it."""
    if _SCP.match(text):
        return text
    if not _URL.match(text):
        raise ValueError("must be protocol://host/path or user@host:path")
    parts = urlsplit(text)
    if parts.password is not None or (parts.username is not None and parts.scheme != "ssh"):
        raise ValueError("must hold no password and, but for ssh, no user (hosts take a token there): give it as token")
    return text


def _ref(text: str) -> str:
    if not _REF.match(text) or ".." in text or "@{" in text:
        raise ValueError("must be a branch, a tag or a commit")
    return text


def _pattern(text: str) -> str:
    if not text or len(text) > 500 or "\0" in text or "\n" in text:
        raise ValueError("must be 1 to 500 characters on one line")
    if text.startswith(("/", "-", "~")) or ".." in text.split("/"):
        raise ValueError("must be relative to the workspace and stay in it")
    return text


# The schema also refuses a password, and what may be a token as user name: the controller never stores one.
_URL_SCHEMA = (
    r"^(?:(?:[a-z]{1,20}://|ssh://[^:@/?#\s]*@)[^@/?#\s]*(?:[/?#]\S*)?"
    r"|[A-Za-z0-9_][A-Za-z0-9._-]*@[A-Za-z0-9][A-Za-z0-9.-]*:[^\s:]\S*)$"
)
Url = Annotated[str, AfterValidator(_url), WithJsonSchema({"type": "string", "pattern": _URL_SCHEMA})]
Ref = Annotated[str, AfterValidator(_ref)]
Pattern = Annotated[str, AfterValidator(_pattern)]


class Build(BaseModel):
    """Parameters of ``build``: ``url`` or ``directory``, and what to run there."""

    url: Annotated[Url | None, Field(description="git repository to check out")] = None
    ref: Annotated[Ref, Field(description="branch, tag or commit; default: the default branch")] = "HEAD"
    depth: Annotated[int, Field(ge=0, le=1_000_000, description="commits of history to fetch; 0: all")] = 1
    token: Annotated[Secret, Field(description="access token for an http(s) url", pattern="^[!-~]*$")] = ""
    directory: Annotated[
        NoNul | None, Field(description="existing folder on the target to build in, instead of url")
    ] = None
    command: Annotated[
        Argv, Field(min_length=1, description="what to run there: a list, or a string split by POSIX shell rules")
    ]
    env: Annotated[Env, Field(description="environment variables of the command")] = {}
    artefacts: Annotated[
        list[Pattern],
        Field(max_length=100, description="patterns (*, ?, [...]) relative to the workspace of files to list"),
    ] = []

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.url is None) == (self.directory is None):
            raise ValueError("give either url or directory")
        return self


class BuildResult(BaseModel):
    """Output of ``build``. ``workspace``: the folder on the target, kept for later steps. ``commit``: what was checked
    out.
    """

    workspace: str
    commit: str | None = None
    exit_code: int | None = None
    signal: str | None = None
    stdout_last_line: str = ""
    stderr_last_line: str = ""
    duration_s: float = 0.0
    artefacts: list[Artefact] = []


async def run_build(context: Context, parameters: Build, settings: WorkspaceSettings) -> BuildResult:
    """Check out, build, list. Raises Failed if the command fails or a pattern matches nothing."""
    commit = None
    if parameters.url is not None:
        workspace = await _workspace(context, settings)
        commit = await _check_out(context, parameters, settings, workspace)
    else:
        workspace = await _existing(context, parameters.directory or "")
    program, *args = parameters.command
    done = await context.run(program, *args, cwd=workspace, env=parameters.env)
    result = BuildResult(
        workspace=workspace,
        commit=commit,
        exit_code=done.exit_code,
        signal=done.signal,
        stdout_last_line=done.last_line,
        stderr_last_line=done.last_error_line,
        duration_s=done.duration_s,
    )
    if not done.ok:
        said = f": {done.last_error_line[:300]}" if done.last_error_line.strip() else ""
        raise Failed(f"the build ended with {done.describe_end()}{said}", output=result, exit_code=done.exit_code)
    found, missing = await find_artefacts(context, parameters.artefacts, inside=workspace)
    result = result.model_copy(update={"artefacts": found})
    if missing:
        raise Failed(f"no artefact matches {', '.join(missing)}", output=result, exit_code=done.exit_code)
    return result


async def _workspace(context: Context, settings: WorkspaceSettings) -> str:
    done = await context.shell(
        _WORKSPACE, settings.workspaces, context.attempt, str(settings.keep_days), log=False, timeout_s=120
    )
    return _path(done, "no_workspace", f"cannot make a workspace in {settings.workspaces}")


async def _existing(context: Context, directory: str) -> str:
    done = await context.shell("pwd -P", cwd=directory, log=False, timeout_s=60)
    return _path(done, "no_such_directory", f"cannot use {directory}")


def _path(done: Completed, kind: str, what: str) -> str:
    path = done.text.removesuffix("\n")
    if not done.ok or not path.startswith("/"):
        raise MethodFault(kind, f"{what}: {done.last_error_line or done.describe_end()}")
    return path


async def _check_out(context: Context, parameters: Build, settings: WorkspaceSettings, workspace: str) -> str:
    url = parameters.url or ""
    protocol = "ssh" if "://" not in url else url.partition("://")[0]
    if protocol not in settings.protocols:
        raise MethodFault(
            "protocol_not_allowed",
            f"git may not fetch by {protocol} here (the agent's settings allow: {', '.join(settings.protocols)})",
            protocol=protocol,
        )
    env = _git_env(url, parameters.token, settings.protocols)
    depth = ("--depth", str(parameters.depth)) if parameters.depth else ()
    await _git(context, workspace, env, "init", "--quiet", ".")
    await context.log(f"fetching {parameters.ref} of {url}")
    await _git(context, workspace, env, "fetch", "--quiet", "--no-tags", *depth, "--", url, parameters.ref)
    await _git(context, workspace, env, "checkout", "--quiet", "--detach", "FETCH_HEAD")
    done = await _git(context, workspace, env, "rev-parse", "HEAD")
    commit = done.last_line
    await context.log(f"checked out {commit} into {workspace}")
    return commit


def _git_env(url: str, token: str, protocols: Sequence[str]) -> Mapping[str, str]:
    env = {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": ":".join(protocols),
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
        "GIT_TEMPLATE_DIR": "",
        "LC_ALL": "C.UTF-8",
    }
    if token and url.startswith(("https://", "http://")):
        # For this host only, and in the environment: process arguments would show a token in the URL.
        parts = urlsplit(url)
        basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
        env["GIT_CONFIG_COUNT"] = "1"
        env["GIT_CONFIG_KEY_0"] = f"http.{parts.scheme}://{parts.netloc}/.extraHeader"
        env["GIT_CONFIG_VALUE_0"] = f"Authorization: Basic {basic}"
    return env


async def _git(context: Context, workspace: str, env: Mapping[str, str], *args: str) -> Completed:
    done = await context.run("git", *args, cwd=workspace, env=env)
    if done.exit_code == NOT_FOUND:
        raise MethodFault("no_git", "the target has no program git")
    if not done.ok:
        said = done.last_error_line or done.describe_end()
        raise MethodFault("checkout_failed", f"git {args[0]}: {said[:500]}", command=args[0])
    return done
