"""What the author of a plugin imports: the whole public API (explained in docs/plugins.md).

A plugin is a class derived from ``Plugin``, found by the entry point group ``proctor.plugins``; its methods are async
functions marked with ``@method``. A method gets a ``Context`` and its parameters, checked against the JSON Schema that
is made of their types. It returns what it found out (passed), raises ``Failed`` (it ran, and the verdict is negative)
or raises ``MethodFault`` (it could not do its work).
"""

import asyncio
import shlex
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from proctor_agent.attempt import Attempt, ProcessGroup, Target
from proctor_agent.ssh import Command, SshFault, Targets, end_tree
from proctor_agent.ssh.faults import CONNECTION_LOST
from proctor_common import terminal_text
from proctor_common.states import Source

__all__ = ["Argv", "Completed", "Context", "Failed", "MethodFault", "Plugin", "Result", "Secret", "method"]

KEEP = 64 * 1024
"""How many of the last bytes of each stream ``Completed`` keeps, unless asked otherwise."""
LONGEST_TAIL = 64 * 1024
LONGEST_LAST_LINE = 4096
CROSSED_GRACE_S = 0.5
TIMEOUT_GRACE_S = 2.0

Output = BaseModel | Mapping[str, Any]


class Failed(Exception):
    """The method did its work and the verdict is negative: the step's result is ``failed``.

    ``reason``: one sentence. ``output``: as of a method that passed; None: none. ``exit_code``: if a program decided.
    """

    def __init__(self, reason: str, *, output: Output | None = None, exit_code: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.output = output
        self.exit_code = exit_code


class MethodFault(Exception):
    """The method could not do its work: the step's result is ``error``.

    ``kind``: one word for machines (a plan may ask ``expect: {error: {kind: …}}``). ``message``: a sentence for people
    that says what to do next. ``data``: further members, JSON.
    """

    def __init__(self, kind: str, message: str, **data: Any) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.data = data


@dataclass(frozen=True, slots=True)
class Result:
    """The step passed."""

    output: Output = field(default_factory=dict)
    """A model or mapping that JSON can hold; at most 64 KiB of it are kept."""
    exit_code: int | None = None
    """Of the program that decided; None: none did."""


def _split(value: object) -> object:
    """A string by POSIX shell rules; anything else unchanged."""
    return shlex.split(value) if isinstance(value, str) else value


Argv = Annotated[
    list[Annotated[str, Field(max_length=128 * 1024)]],
    Field(max_length=1000),
    BeforeValidator(_split),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": {"type": "string"}, "maxItems": 1000},
                {"type": "string", "maxLength": 131072},
            ],
            "x-argv": True,
        }
    ),
]
"""Arguments of a program: a list (each as it is) or a string (split by POSIX shell rules before any expression in it is
filled in, so that a value never becomes two arguments). The method gets a list.
"""

Secret = Annotated[str, Field(json_schema_extra={"x-secret": True})]
"""Text that must not be seen: stored sealed, shown as ``***``, masked in the log. Pass it to a command by ``env`` or
``stdin``, never as an argument.
"""


class Tail:
    """The last bytes of a stream."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._data = b""
        self.total = 0

    def add(self, data: bytes) -> None:
        """Append bytes; the oldest beyond ``keep`` are dropped."""
        self.total += len(data)
        self._data = data[-self._keep :] if len(data) >= self._keep else (self._data + data)[-self._keep :]

    @property
    def data(self) -> bytes:
        """What is kept, without an incomplete UTF-8 sequence at the cut."""
        data = self._data
        if self.total > len(data):
            skip = 0
            while skip < min(3, len(data)) and 0x80 <= data[skip] < 0xC0:
                skip += 1
            data = data[skip:]
        return data


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that has ended."""

    exit_code: int | None
    """None: it was ended by ``signal``, such as "SIGTERM"."""
    signal: str | None
    stdout: bytes
    """The last ``keep`` bytes."""
    stderr: bytes
    cut: bool
    """Whether ``stdout`` or ``stderr`` had more bytes than are kept."""
    duration_s: float

    @property
    def ok(self) -> bool:
        """Whether the exit code is 0."""
        return self.exit_code == 0

    @property
    def text(self) -> str:
        """``stdout`` as text; invalid UTF-8 becomes U+FFFD."""
        return self.stdout.decode("utf-8", "replace")

    @property
    def error_text(self) -> str:
        """``stderr`` as text; invalid UTF-8 becomes U+FFFD."""
        return self.stderr.decode("utf-8", "replace")

    @property
    def last_line(self) -> str:
        """The last line of standard output, without its end; at most 4,096 characters."""
        return last_line(self.text)

    @property
    def last_error_line(self) -> str:
        """The last line of standard error, without its end; at most 4,096 characters."""
        return last_line(self.error_text)

    def describe_end(self) -> str:
        """``exit code 3`` or ``ended by SIGKILL``."""
        return f"exit code {self.exit_code}" if self.signal is None else f"ended by {self.signal}"


def last_line(text: str) -> str:
    """The last line of a text that says something, as a terminal would have shown it: no colours, of a progress bar
    its last state; at most 4,096 characters, "" for none. Looked for in the last 64 KiB.
    """
    return terminal_text.last_line(text[-LONGEST_TAIL:])[:LONGEST_LAST_LINE]


class Context:
    """What a method works with: its target, log and time. One for each attempt."""

    def __init__(self, attempt: Attempt, targets: Targets, target: Target) -> None:
        self._attempt = attempt
        self._targets = targets
        self._target = target

    @property
    def target(self) -> Target:
        """The machine on which ``run`` runs: ``name``, ``host``, ``port``, ``user``."""
        return self._target

    @property
    def attempt(self) -> str:
        """``<step>.<attempt>``: unique, and usable as a part of a file's name."""
        return self._attempt.marker

    @property
    def env(self) -> Mapping[str, str]:
        """The step's environment variables; ``run`` adds them to each command."""
        return self._attempt.env

    @property
    def scratch(self) -> Path:
        """A private folder on the agent's own host, removed when the attempt ends."""
        return self._attempt.scratch

    @property
    def remaining_s(self) -> float:
        """Seconds until the step's timeout."""
        return max(0.0, self._attempt.deadline - asyncio.get_running_loop().time())

    @property
    def stopping(self) -> bool:
        """Whether the step is being cancelled or has timed out: no further command starts; return soon."""
        return self._attempt.stopping.is_set()

    async def stopped(self) -> None:
        """Wait until ``stopping``."""
        await self._attempt.stopping.wait()

    async def log(self, text: str) -> None:
        """Write a line to the step's log, as source ``system``."""
        await self._attempt.write(Source.SYSTEM, f"{text}\n".encode("utf-8", "replace"))

    async def run(
        self,
        program: str,
        *args: str,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: bytes | None = None,
        timeout_s: float | None = None,
        log: bool = True,
        keep: int = KEEP,
    ) -> Completed:
        """Run a program on the target and wait for its end. No shell interprets the arguments: any text without NUL
        arrives unchanged. What it prints goes to the step's log as it comes (``log=False``: standard output does not).
        Another exit code than 0 raises nothing; look at ``Completed.exit_code``.

        Raises MethodFault: ``timeout`` (after ``timeout_s`` seconds; its process tree was ended), ``connection_lost``
        (how it ended is unknown), ``no_such_directory`` (``cwd``), ``bad_command``, ``stopping``, or why the target
        could not be reached (``target_unreachable``, ``host_key_changed``, …). In all but the first two cases it never
        ran.
        """
        if self.stopping:
            raise MethodFault("stopping", "the attempt is being stopped: no further command is started")
        streams = {Source.STDOUT: Tail(keep), Source.STDERR: Tail(keep), Source.SYSTEM: Tail(keep)}
        groups: list[ProcessGroup] = []

        async def sink(source: Source, data: bytes) -> None:
            streams[source].add(data)
            if log or source is not Source.STDOUT:
                await self._attempt.write(source, data)

        async def on_start(group: ProcessGroup) -> None:
            groups.append(group)
            await self._attempt.group_started(group)
            if self.stopping:
                # It started while the attempt was being stopped; the stop may have looked for processes too early to
                # see it.
                await end_tree(self._targets, self._target.name, [group], "", CROSSED_GRACE_S)

        values = {**self._attempt.env, **(env or {})}
        command = Command(
            (program, *args),
            env=values,
            hidden=[name for name, value in values.items() if self._attempt.hides(value)],
            cwd=cwd,
            stdin=stdin,
            marker=self._attempt.marker,
            run=self._attempt.run,
        )
        try:
            async with asyncio.timeout(timeout_s):
                end = await self._targets.run(self._target.name, command, sink, on_start)
        except SshFault as fault:
            if fault.kind == CONNECTION_LOST:
                self._attempt.connection_lost(self._target.name)
            raise MethodFault(fault.kind, fault.message, **fault.data) from None
        except TimeoutError:
            gone = await end_tree(self._targets, self._target.name, groups, "", TIMEOUT_GRACE_S) if groups else None
            raise MethodFault(
                "timeout", f"{program} did not end within {timeout_s:g} s", timeout_s=timeout_s, tree_gone=gone
            ) from None
        for group in groups if not end.held else ():
            await self._attempt.group_ended(group)
        out, err = streams[Source.STDOUT], streams[Source.STDERR]
        return Completed(
            exit_code=end.code,
            signal=end.signal,
            stdout=out.data,
            stderr=err.data,
            cut=out.total > keep or err.total > keep,
            duration_s=round(end.duration_s, 6),
        )

    async def reset_connection(self) -> None:
        """Log in to the target again: later commands have the groups, limits and environment of the new login. Raises
        MethodFault if that fails.
        """
        try:
            await self._targets.reset(self._target.name)
        except SshFault as fault:
            raise MethodFault(fault.kind, fault.message, **fault.data) from None

    async def shell(self, text: str, *args: str, **options: Any) -> Completed:
        """Run shell text by the target's ``/bin/sh``; ``args`` are its ``$1``, ``$2``, … Never put a value into the
        text: pass it as an argument. Options and faults are those of ``run``.
        """
        return await self.run("/bin/sh", "-c", text, "sh", *args, **options)


class Plugin:
    """The base of every plugin. One object lives as long as the agent; attempts run at the same time, so keep what
    belongs to one of them out of ``self``.
    """

    description: ClassVar[str] = ""
    """One line."""
    version: ClassVar[str] = ""
    """Of the plugin."""
    Settings: ClassVar[type[BaseModel] | None] = None
    """A model of the plugin's own settings; None: it has none. ``self.settings`` holds the agent's values for it."""

    def __init__(self, settings: BaseModel | None = None) -> None:
        self.settings: Any = settings


MARK = "__proctor_method__"
AnyMethod = TypeVar("AnyMethod", bound=Callable[..., Awaitable[Any]])


def method(*, description: str, name: str | None = None) -> Callable[[AnyMethod], AnyMethod]:
    """Publish an async function of a plugin as a method. ``description``: what it does, for the users who choose a
    method. ``name``: None for the function's own.

    The parameters after ``self`` and the Context become the method's parameters: their types (anything that pydantic
    supports) and defaults make the schema. Alternatively one pydantic model takes them all.
    """

    def mark(function: AnyMethod) -> AnyMethod:
        setattr(function, MARK, (name or cast("Any", function).__name__, description))
        return function

    return mark
