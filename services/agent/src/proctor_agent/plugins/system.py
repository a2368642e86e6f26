"""``system_information``: what a Linux target is and its load, as a typed document, read by one command."""

from collections.abc import Iterable

from pydantic import BaseModel

from proctor_agent.plugin import Completed, Context, MethodFault

DESCRIPTION = "facts of the target: operating system, kernel, host name, uptime, cpu, memory, disks, load"

TIMEOUT_S = 60.0
KEEP = 1024 * 1024
_SECTION = "=== proctor "
_SCRIPT = f"""
section() {{ printf '{_SECTION}%s\\n' "$1"; }}
section os; cat /etc/os-release 2>/dev/null || cat /usr/lib/os-release 2>/dev/null
section kernel; uname -s; uname -r; uname -v; uname -m
section hostname; uname -n
section uptime; cat /proc/uptime
section load; cat /proc/loadavg
section memory; cat /proc/meminfo
section cpu; sed -n '/^processor/p;/^model name/p;/^physical id/p;/^cpu MHz/p;/^Model/p;/^Hardware/p' /proc/cpuinfo
section disks; df -P -k
section end
"""
_NO_DISKS = frozenset({"tmpfs", "devtmpfs", "udev", "none", "shm", "run", "efivarfs", "dev", "cgroup", "cgroup2"})


class OperatingSystem(BaseModel):
    """From os-release; empty what that does not say."""

    id: str = ""
    name: str = ""
    version: str = ""
    pretty_name: str = ""


class Kernel(BaseModel):
    """From uname."""

    name: str = ""
    release: str = ""
    version: str = ""
    machine: str = ""


class Cpu(BaseModel):
    """``count``: logical processors; ``sockets``: 0 if unknown."""

    model: str = ""
    count: int = 0
    sockets: int = 0
    mhz: float | None = None


class Memory(BaseModel):
    """Bytes."""

    total: int = 0
    available: int = 0
    free: int = 0
    swap_total: int = 0
    swap_free: int = 0


class Disk(BaseModel):
    """A mounted filesystem with storage; sizes in bytes."""

    filesystem: str
    mount: str
    size: int
    used: int
    available: int


class Load(BaseModel):
    """Mean number of runnable processes over 1, 5 and 15 minutes."""

    one: float = 0.0
    five: float = 0.0
    fifteen: float = 0.0


class SystemInformation(BaseModel):
    """The document."""

    hostname: str
    os: OperatingSystem
    kernel: Kernel
    uptime_s: float
    cpu: Cpu
    memory: Memory
    disks: list[Disk]
    load: Load


async def system_information(context: Context) -> SystemInformation:
    """Read it. Raises MethodFault ``no_information`` if the target is no Linux system."""
    done = await context.shell(_SCRIPT, timeout_s=TIMEOUT_S, log=False, keep=KEEP)
    found = parse(done.text)
    if found is None:
        raise MethodFault("no_information", f"the target did not tell about itself: {_why(done)}")
    await context.log(summary(found))
    return found


def _why(done: Completed) -> str:
    return done.last_error_line or done.describe_end()


def summary(found: SystemInformation) -> str:
    """The document in a few lines, for the log."""
    gib = 1024**3
    disks = ", ".join(f"{disk.mount} {disk.used / gib:.1f}/{disk.size / gib:.1f} GiB" for disk in found.disks[:8])
    return "\n".join(
        (
            f"{found.hostname}: {found.os.pretty_name or found.os.name}, {found.kernel.name} {found.kernel.release} "
            f"{found.kernel.machine}, up {found.uptime_s / 3600:.1f} h",
            f"{found.cpu.count} x {found.cpu.model or 'cpu'}, load {found.load.one:g} {found.load.five:g} "
            f"{found.load.fifteen:g}, memory {found.memory.available / gib:.1f} of {found.memory.total / gib:.1f} GiB "
            "available",
            f"disks: {disks or 'none'}",
        )
    )


def parse(text: str) -> SystemInformation | None:
    """The document in the script's output; None if the output is incomplete."""
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(_SECTION):
            lines = sections.setdefault(line.removeprefix(_SECTION), [])
        else:
            lines.append(line)
    if "end" not in sections or not sections.get("memory"):
        return None
    return SystemInformation(
        hostname=_first(sections["hostname"]),
        os=_os(sections["os"]),
        kernel=_kernel(sections["kernel"]),
        uptime_s=_number(_first(sections["uptime"]).partition(" ")[0]),
        cpu=_cpu(sections["cpu"]),
        memory=_memory(sections["memory"]),
        disks=_disks(sections["disks"]),
        load=_load(_first(sections["load"])),
    )


def _first(lines: list[str]) -> str:
    return lines[0].strip() if lines else ""


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _pairs(lines: Iterable[str], separator: str) -> list[tuple[str, str]]:
    split = (line.partition(separator) for line in lines)
    return [(name.strip(), value.strip()) for name, found, value in split if found]


def _os(lines: list[str]) -> OperatingSystem:
    said = {name: value.strip("\"'") for name, value in _pairs(lines, "=")}
    return OperatingSystem(
        id=said.get("ID", ""),
        name=said.get("NAME", ""),
        version=said.get("VERSION_ID", ""),
        pretty_name=said.get("PRETTY_NAME", ""),
    )


def _kernel(lines: list[str]) -> Kernel:
    name, release, version, machine = ([line.strip() for line in lines] + [""] * 4)[:4]
    return Kernel(name=name, release=release, version=version, machine=machine)


def _cpu(lines: list[str]) -> Cpu:
    pairs = _pairs(lines, ":")
    models = [value for name, value in pairs if name in ("model name", "Model", "Hardware")]
    clocks = [_number(value) for name, value in pairs if name == "cpu MHz"]
    return Cpu(
        model=models[0] if models else "",
        count=sum(name == "processor" for name, _ in pairs),
        sockets=len({value for name, value in pairs if name == "physical id"}),
        mhz=clocks[0] if clocks else None,
    )


def _memory(lines: list[str]) -> Memory:
    said = {name: int(_number(value.partition(" ")[0])) * 1024 for name, value in _pairs(lines, ":")}
    free = said.get("MemFree", 0)
    return Memory(
        total=said.get("MemTotal", 0),
        available=said.get("MemAvailable", free),
        free=free,
        swap_total=said.get("SwapTotal", 0),
        swap_free=said.get("SwapFree", 0),
    )


def _disks(lines: list[str]) -> list[Disk]:
    disks = []
    for line in lines[1:]:
        fields = line.split(None, 5)
        if len(fields) < 6 or not all(field.isdigit() for field in fields[1:4]):
            continue
        size, used, available = (int(field) * 1024 for field in fields[1:4])
        if size and fields[0] not in _NO_DISKS:
            disks.append(Disk(filesystem=fields[0], mount=fields[5], size=size, used=used, available=available))
    return disks


def _load(line: str) -> Load:
    one, five, fifteen = ([_number(word) for word in line.split()[:3]] + [0.0] * 3)[:3]
    return Load(one=one, five=five, fifteen=fifteen)
