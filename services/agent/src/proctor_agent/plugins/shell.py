"""``run_shell``: one command on the target, shared by the built-in plugins."""

from typing import Annotated

from pydantic import BaseModel, Field, WithJsonSchema

from proctor_agent.plugin import Argv, Completed, Context, Failed, Result

DESCRIPTION = (
    "run a command on the target; exit code 0 passes, any other fails. command: a program; args: a list (each as it "
    "is) or a string (split by shell rules); shell: true takes command as shell text, in which args are $1, $2, ..."
)

NoNul = Annotated[str, Field(max_length=128 * 1024, pattern="^[^\\x00]*$")]
NOT_FOUND = 127
ENV_NAME = "^[A-Za-z_][A-Za-z0-9_]{0,127}$"
Env = Annotated[
    dict[Annotated[str, Field(pattern=ENV_NAME)], NoNul],
    Field(max_length=100),
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": 100,
            "propertyNames": {"pattern": ENV_NAME},
            "additionalProperties": {"type": "string", "maxLength": 131072},
        }
    ),
]
"""Environment variables by name."""


class RunShell(BaseModel):
    """Parameters of ``run_shell``."""

    command: Annotated[NoNul, Field(min_length=1, description="a program's name or path; with shell: true, shell text")]
    args: Annotated[
        Argv,
        Field(description="arguments: a list, each as it is, or a string, split by POSIX shell rules; none if empty"),
    ] = []
    shell: Annotated[
        bool, Field(description="run command as text by the target's /bin/sh, with args as its $1, $2, ...")
    ] = False
    env: Annotated[Env, Field(description="environment variables to add")] = {}
    cwd: Annotated[
        NoNul | None, Field(description="working directory on the target; default: where a login starts")
    ] = None


class ShellResult(BaseModel):
    """Output of ``run_shell``. ``exit_code``: null if a signal ended the command. ``stdout``: last 64 KiB, invalid
    UTF-8 as U+FFFD.
    """

    exit_code: int | None
    signal: str | None
    stdout_last_line: str
    stderr_last_line: str
    stdout: str
    duration_s: float


async def run_shell(context: Context, parameters: RunShell) -> Result:
    """Run it. Raises Failed unless it exits with 0."""
    if parameters.shell:
        done = await context.shell(parameters.command, *parameters.args, env=parameters.env, cwd=parameters.cwd or None)
    else:
        done = await context.run(parameters.command, *parameters.args, env=parameters.env, cwd=parameters.cwd or None)
        if done.exit_code == NOT_FOUND and " " in parameters.command.strip():
            await context.log(
                "command is the name of one program, blanks included: its arguments belong into args "
                "(or ask for a shell with shell: true)"
            )
    return verdict(done)


def verdict(done: Completed) -> Result:
    """Passed for exit code 0. Raises Failed for any other end."""
    output = ShellResult(
        exit_code=done.exit_code,
        signal=done.signal,
        stdout_last_line=done.last_line,
        stderr_last_line=done.last_error_line,
        stdout=done.text,
        duration_s=done.duration_s,
    )
    if done.ok:
        return Result(output, exit_code=0)
    said = f": {done.last_error_line[:300]}" if done.last_error_line.strip() else ""
    raise Failed(done.describe_end() + said, output=output, exit_code=done.exit_code)
