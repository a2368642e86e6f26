"""``proctor agents`` and ``proctor groups``: the fleet."""

import json
from typing import Annotated, Any

import typer

from proctor_cli.faults import Usage
from proctor_cli.options import Output, OutputOption, open_client
from proctor_cli.render import ago, as_json, harmless, table, talk

agents_app = typer.Typer(
    help="List agents; enrol, drain, release and remove them.",
    invoke_without_command=True,
    epilog="Example: proctor agents -o json · proctor agents show lab-7",
)
groups_app = typer.Typer(
    help="List groups; bind agents to them.",
    invoke_without_command=True,
    epilog="Example: proctor groups create lab-a · proctor groups add lab-a lab-7",
)
AgentArgument = Annotated[str, typer.Argument(metavar="AGENT", help="host name or id")]
GroupArgument = Annotated[str, typer.Argument(metavar="GROUP")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.add_typer(agents_app, name="agents")
    app.add_typer(groups_app, name="groups")


@agents_app.callback()
def list_agents(context: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """List agents: their state, slots, groups and plugins."""
    if context.invoked_subcommand is not None:
        return
    with open_client() as client:
        found = list(client.items("/v1/agents"))
    if output is Output.JSON:
        as_json(found)
        return
    table(
        ["host", "state", "slots", "groups", "labels", "plugins", "heartbeat", "version"],
        [
            [
                a["host"],
                _state(a),
                f"{a['used_slots']}/{a['slots']}",
                ",".join(a["groups"]),
                ",".join(f"{k}={v}" for k, v in a["labels"].items()),
                ",".join(a["plugins"]),
                ago(a["last_heartbeat"]),
                a["version"],
            ]
            for a in found
        ],
    )


@agents_app.command("show", epilog="Example: proctor agents show lab-7")
def show_agent(agent: AgentArgument, output: OutputOption = Output.TABLE) -> None:
    """Show one agent and the methods it offers."""
    with open_client() as client:
        found = client.get(f"/v1/agents/{agent}")
    if output is Output.JSON:
        as_json(found)
        return
    print(f"{found['host']}  {_state(found)}  {found['used_slots']}/{found['slots']} slots  {found['reason']}".rstrip())
    for plugin, spec in found["plugins"].items():
        for name, method in spec["methods"].items():
            print(harmless(f"\n{plugin}.{name}  {method['description']}".rstrip()))
            for line in parameter_lines(method["parameters"]):
                print(harmless(f"    {line}"))
    for plugin, reason in found["load_errors"].items():
        talk(f"{plugin} could not be loaded: {reason}", style="red")


def parameter_lines(schema: dict[str, Any]) -> list[str]:
    """A line for each parameter of a method, required ones first: name, type, default, description."""
    needed = set(schema.get("required", []))
    members = sorted(schema.get("properties", {}).items(), key=lambda member: member[0] not in needed)
    lines = []
    for name, about in members:
        default = f" = {json.dumps(about['default'], ensure_ascii=False)}" if about.get("default") is not None else ""
        must = " (required)" if name in needed else ""
        what = f": {about['description']}" if about.get("description") else ""
        lines.append(f"{name}: {_type_of(about)}{default}{must}{what}".replace("\n", " "))
    return lines


def _type_of(about: dict[str, Any]) -> str:
    """A short name for a JSON Schema's type."""
    if "enum" in about:
        return " | ".join(json.dumps(value, ensure_ascii=False) for value in about["enum"])
    several = about.get("anyOf") or about.get("oneOf")
    if several:
        return " | ".join(dict.fromkeys(_type_of(each) for each in several if each.get("type") != "null"))
    kind = about.get("type", "any")
    return " | ".join(kind) if isinstance(kind, list) else str(kind)


@agents_app.command("enroll", epilog="Example: proctor agents enroll lab-7 --group lab-a --label os=debian")
def enroll(
    host: Annotated[str, typer.Argument(metavar="HOST")],
    group: Annotated[list[str] | None, typer.Option(help="a group it belongs to (may be repeated)")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="K=V")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Permit a new agent: prints a one-time token, valid for 15 minutes, and the command that uses it."""
    labels = dict(_label(text) for text in label or [])
    with open_client() as client:
        found = client.post("/v1/agents/enrolments", {"host": host, "groups": group or [], "labels": labels})
        url = client.endpoint.url
    if output is Output.JSON:
        as_json(found)
        return
    talk(f"on {host}, run this and give it the token on standard input (valid once, until {found['expires_at']}):")
    print(f"proctor-agent join {url}")
    print(found["token"])


@agents_app.command("drain", epilog="Example: proctor agents drain lab-7")
def drain(agent: AgentArgument) -> None:
    """Give an agent no new work. Its running steps continue, and so do runs that have leased the host."""
    _act(agent, "drain")


@agents_app.command("release", epilog="Example: proctor agents release lab-7")
def release(agent: AgentArgument) -> None:
    """Let runs lease the host for themselves though processes of ended steps are left on it."""
    _act(agent, "release")


@agents_app.command("undrain", epilog="Example: proctor agents undrain lab-7")
def undrain(agent: AgentArgument) -> None:
    """Give an agent work again."""
    _act(agent, "undrain")


@agents_app.command("remove", epilog="Example: proctor agents remove lab-7")
def remove(agent: AgentArgument) -> None:
    """Remove an agent: its connection is closed and its key is refused."""
    with open_client() as client:
        client.delete(f"/v1/agents/{agent}")
    talk(f"{agent} is removed")


@groups_app.callback()
def list_groups(context: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """List groups and their agents."""
    if context.invoked_subcommand is not None:
        return
    with open_client() as client:
        found = list(client.items("/v1/groups"))
    if output is Output.JSON:
        as_json(found)
    else:
        table(["group", "agents"], [[g["name"], ", ".join(g["agents"])] for g in found])


@groups_app.command("create", epilog="Example: proctor groups create lab-a")
def create_group(group: GroupArgument) -> None:
    """Create a group."""
    with open_client() as client:
        client.put(f"/v1/groups/{group}")
    talk(f"group {group} is there")


@groups_app.command("delete", epilog="Example: proctor groups delete lab-a")
def delete_group(group: GroupArgument) -> None:
    """Delete a group; its agents stay."""
    with open_client() as client:
        client.delete(f"/v1/groups/{group}")
    talk(f"group {group} is deleted")


@groups_app.command("add", epilog="Example: proctor groups add lab-a lab-7")
def add_to_group(group: GroupArgument, agent: AgentArgument) -> None:
    """Bind an agent to a group."""
    with open_client() as client:
        client.put(f"/v1/groups/{group}/agents/{agent}")
    talk(f"{agent} belongs to {group}")


@groups_app.command("remove", epilog="Example: proctor groups remove lab-a lab-7")
def remove_from_group(group: GroupArgument, agent: AgentArgument) -> None:
    """Take an agent out of a group."""
    with open_client() as client:
        client.delete(f"/v1/groups/{group}/agents/{agent}")
    talk(f"{agent} belongs to {group} no longer")


def _act(agent: str, verb: str) -> None:
    with open_client() as client:
        found = client.post(f"/v1/agents/{agent}/{verb}")
    leases = found["leases"]
    leased = f", {leases} {'run has' if leases == 1 else 'runs have'} leased it" if leases else ""
    talk(f"{found['host']} is {_state(found)}: {found['used_slots']} of {found['slots']} slots are busy{leased}")


def _state(agent: dict[str, Any]) -> str:
    """Its state. A drained agent is "draining" until its last step has ended, and the last run that has leased it."""
    if not agent["draining"]:
        return str(agent["state"])
    if agent["state"] != "online":
        return f"{agent['state']}, drained"
    return "draining" if agent["used_slots"] or agent["leases"] else "drained"


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise Usage(f"not K=V: {text}")
    return key, value
