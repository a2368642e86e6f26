"""Agents' reports on stream EVENT, their heartbeat and registration.

An event's subject names the agent, the step and the attempt; the controller trusts the subject, not the payload.
"""

from datetime import datetime
from typing import Literal

from pydantic import Field

from proctor_common.messages.base import VERSION, JsonObject, WireMessage
from proctor_common.states import StepResult


class MethodError(WireMessage):
    """Why a method failed: a kind for machines, a message for people, the method's own data."""

    kind: str
    message: str
    data: JsonObject = {}


class StepFinished(WireMessage):
    """The end of an attempt; published after its last log chunk was stored, and repeated until it is confirmed."""

    v: int = VERSION
    type: Literal["step_finished"] = "step_finished"
    run: str
    step: str
    attempt: int
    token: str
    result: StepResult
    """passed, failed, error, timed_out, cancelled or lost."""
    reason: str = ""
    exit_code: int | None = None
    output: JsonObject = {}
    """What the method returned, at most 64 KiB as JSON (plus ``stdout``, cut to fit)."""
    error: MethodError | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    chunks: int = 0
    """Number of log chunks of the attempt: their ``seq`` are 1 to this."""
    lines: int = 0
    bytes: int = 0
    tree_gone: bool | None = None
    """After a kill: whether the process tree on the target is gone; None: unknown, or nothing was killed."""


class AttemptRef(WireMessage):
    """One attempt by its ids."""

    step: str
    attempt: int
    token: str = ""


class Heartbeat(WireMessage):
    """Every 5 s, a request to the controllers' queue group. ``attempts``: live ones; ``ended``: unconfirmed ends."""

    v: int = VERSION
    boot_id: str
    instance: str
    """New at each start of the agent's process."""
    slots: int
    attempts: list[AttemptRef] = []
    ended: list[AttemptRef] = []
    spool_bytes: int = 0
    holding: list[str] = []
    """Runs whose steps left a process on a target that holds an output open: which of them have ended?"""
    remains: list[str] = []
    """What ended attempts may have left running on targets, as sentences for people."""
    time: datetime
    """The agent's clock, for its operator; the controller uses its own."""


class HeartbeatReply(WireMessage):
    """``time``: the controller's clock. ``confirmed``: stored ends, which the agent may forget. ``unwanted``: attempts
    that the agent must kill. ``register_again``: register once more. ``over``: those of the runs in ``holding`` that
    have ended. ``refused``: another instance is registered as this agent.
    """

    v: int = VERSION
    time: datetime
    confirmed: list[AttemptRef] = []
    unwanted: list[AttemptRef] = []
    register_again: bool = False
    over: list[str] = []
    refused: str = ""
    draining: bool = False


class MethodSpec(WireMessage):
    """A method as its plugin publishes it. `parameters` is a JSON Schema: at most 64 KiB, `$ref` only within it.

    A property of the schema may have `x-argv` (the controller splits a string by POSIX shell rules, before it evaluates
    expressions) and `x-secret` (stored encrypted, shown masked).
    """

    description: str = ""
    parameters: JsonObject = Field(default_factory=lambda: {"type": "object"})


class PluginSpec(WireMessage):
    """A plugin and its methods, at most 200."""

    description: str = ""
    version: str = ""
    methods: dict[str, MethodSpec] = {}


class TargetSpec(WireMessage):
    """An SSH endpoint that an agent knows, without its credentials."""

    host: str
    port: int = 22
    user: str = ""


class Registration(WireMessage):
    """What an agent offers; sent at each start and on request. Host, groups and labels come from the enrolment."""

    v: int = VERSION
    boot_id: str
    instance: str
    version: str
    slots: int = Field(ge=1, le=1024)
    plugins: dict[str, PluginSpec] = {}
    load_errors: dict[str, str] = {}
    """Why plugins could not be loaded, by plugin."""
    targets: dict[str, TargetSpec] = {}
    default_target: str | None = None
    leftovers: list[AttemptRef] = []
    """Attempts of a former process that are being cleaned up: no new work until they are gone."""


class RegistrationReply(WireMessage):
    """The answer to a registration: the agent's number and the controller's time, or a refusal."""

    v: int = VERSION
    agent: str
    host: str
    number: int
    time: datetime
    refused: str = ""
    """Why the registration is not taken: e.g. another instance of this agent still beats, or a schema is over the
    limit.
    """
