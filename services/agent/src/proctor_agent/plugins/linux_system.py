"""The built-in plugin ``linux_system``: commands, facts and reachability of a Linux target."""

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from proctor_agent.plugin import Completed, Context, Failed, MethodFault, Plugin, Result, method
from proctor_agent.plugins import shell, system
from proctor_agent.plugins.shell import RunShell
from proctor_agent.plugins.system import SystemInformation

HOST = re.compile(r"^[A-Za-z0-9](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_-]{1,63}){0,20}\.?\Z")
_COUNTS = re.compile(r"(\d+) packets transmitted, (\d+) (?:packets )?received")
_TIMES = re.compile(r"= ([\d.]+)/([\d.]+)/([\d.]+)(?:/[\d.]+)? ms")
_ADDRESS = re.compile(r"^PING \S+ \(([0-9A-Fa-f.:%]+)\)", re.MULTILINE)
NOT_FOUND = 127


def _address(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        if len(text) > 253 or not HOST.match(text):
            raise ValueError("must be a host name or an IP address") from None
    return text


class Ping(BaseModel):
    """Output of ``ping``; times in milliseconds, null if no packet came back."""

    host: str
    address: str
    sent: int
    received: int
    loss_percent: float
    rtt_min_ms: float | None = None
    rtt_avg_ms: float | None = None
    rtt_max_ms: float | None = None


class LinuxSystem(Plugin):
    """Commands and facts of a Linux machine."""

    description = "commands and facts of a Linux machine"
    version = "1"

    @method(description=shell.DESCRIPTION)
    async def run_shell(self, context: Context, parameters: RunShell) -> Result:
        return await shell.run_shell(context, parameters)

    @method(description=system.DESCRIPTION)
    async def system_information(self, context: Context) -> SystemInformation:
        return await system.system_information(context)

    @method(
        description="log in to the target anew: commands that start later have the groups, limits and environment of a "
        "new login; those that run go on"
    )
    async def reset_connection(self, context: Context) -> None:
        await context.reset_connection()

    @method(description="ask a host for echoes, from the target; passes if at least one comes back")
    async def ping(
        self,
        context: Context,
        host: Annotated[str, Field(description="a host name or an IP address"), AfterValidator(_address)],
        count: Annotated[int, Field(ge=1, le=100, description="how many to send, one a second")] = 3,
        timeout: Annotated[int, Field(ge=1, le=60, description="seconds to wait for each answer")] = 5,
    ) -> Ping:
        done = await context.run(
            "ping", "-c", str(count), "-W", str(timeout), host,
            env={"LC_ALL": "C"}, timeout_s=count * (timeout + 1.0) + 10,
        )  # fmt: skip
        found = ping_result(host, done)
        if found.received == 0:
            raise Failed(f"no answer from {host} to {found.sent} packets", output=found, exit_code=done.exit_code)
        return found


def ping_result(host: str, done: Completed) -> Ping:
    """What the target's ping printed. Raises MethodFault: ``no_ping``, or ``ping_failed`` if it could not send."""
    if done.exit_code == NOT_FOUND:
        raise MethodFault("no_ping", "the target has no program ping (Debian: package iputils-ping)")
    counts = _COUNTS.search(done.text)
    if counts is None:
        raise MethodFault("ping_failed", f"ping {host}: {done.last_error_line or done.describe_end()}", host=host)
    sent, received = int(counts[1]), int(counts[2])
    times = _TIMES.search(done.text)
    address = _ADDRESS.search(done.text)
    return Ping(
        host=host,
        address=address[1] if address else "",
        sent=sent,
        received=received,
        loss_percent=round(100 * (1 - received / sent), 3) if sent else 100.0,
        rtt_min_ms=float(times[1]) if times else None,
        rtt_avg_ms=float(times[2]) if times else None,
        rtt_max_ms=float(times[3]) if times else None,
    )
