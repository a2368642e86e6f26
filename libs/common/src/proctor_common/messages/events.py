"""What agents report on stream EVENT, and their heartbeat and registration.

An event's subject names the agent, the step and the attempt; the controller believes the subject, never the
payload's claim of who speaks.
"""

from datetime import datetime
from typing import Literal

from pydantic import Field

from proctor_common.messages.base import VERSION, JsonObject, WireMessage
from proctor_common.states import StepResult


class MethodError(WireMessage):
    """Why a method did not end well: a kind for machines, a message for people, data of the method's own."""

    kind: str
    message: str
    data: JsonObject = {}


class StepFinished(WireMessage):
    """The end of an attempt; published once its last log chunk is stored, and again until a controller confirms
    it.
    """

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
    """Log chunks of the attempt: their ``seq`` are 1 to this."""
    lines: int = 0
    bytes: int = 0
    tree_gone: bool | None = None
    """After a kill: whether the process tree on the target is gone; None where it could not be confirmed or nothing
    was killed.
    """


class AttemptRef(WireMessage):
    """One attempt by its names."""

    step: str
    attempt: int
    token: str = ""


class Heartbeat(WireMessage):
    """Every 5 s, a request to the controllers' queue group. ``attempts``: those that live; ``ended``: ends not
    confirmed yet.
    """

    v: int = VERSION
    boot_id: str
    instance: str
    """New at each start of the agent's process."""
    slots: int
    attempts: list[AttemptRef] = []
    ended: list[AttemptRef] = []
    spool_bytes: int = 0
    holding: list[str] = []
    """Runs whose steps have left something on a target that still holds an output: which of them are over?"""
    remains: list[str] = []
    """What of ended attempts may live on on the targets, in sentences for people."""
    time: datetime
    """The agent's clock, for its operator; the controller decides by its own."""


class HeartbeatReply(WireMessage):
    """``time``: the controller's clock. ``confirmed``: ends that are committed: the agent may forget them.
    ``unwanted``: attempts the agent should not have: it kills them. ``register_again``: register once more.
    ``over``: of the runs that it is ``holding`` outputs for, those that have ended. ``refused``: another instance
    speaks as this agent.
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

    A property of the schema may have `x-argv` (the controller splits a string by POSIX shell rules, before it
    evaluates expressions) and `x-secret` (stored encrypted, shown masked).
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
    """What an agent brings; sent at each start and whenever asked for. Host, groups and labels come from the
    enrolment, not from here.
    """

    v: int = VERSION
    boot_id: str
    instance: str
    version: str
    slots: int = Field(ge=1, le=1024)
    plugins: dict[str, PluginSpec] = {}
    load_errors: dict[str, str] = {}
    """Plugins that failed to load, with the reason."""
    targets: dict[str, TargetSpec] = {}
    default_target: str | None = None
    leftovers: list[AttemptRef] = []
    """Attempts of a former instance that are being cleaned up: no new work until they are gone."""


class RegistrationReply(WireMessage):
    """What an agent is told that registers: its number and the controller's time, or why it is refused."""

    v: int = VERSION
    agent: str
    host: str
    number: int
    time: datetime
    refused: str = ""
    """Why the registration is not taken: e.g. another instance of this agent still beats, or a schema is over the
    limit.
    """
