"""Ends what a command left on a target: TERM, grace, KILL, look again. Needs a POSIX shell and /proc there, no more."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from proctor_agent.attempt import ATTEMPT_ENV, ProcessGroup
from proctor_agent.ssh.command import Command
from proctor_agent.ssh.faults import SshFault
from proctor_agent.ssh.targets import Targets
from proctor_common.states import Source

NAMES_S = 3.0
KILL_WAIT_S = 5.0
"""How long killed processes may take to go; one in an uninterruptible wait does not."""
EXTRA_S = 8.0
"""What looking, connecting and killing may take beyond the grace."""
LONGEST_LOOK_INTERVAL_S = 0.5

# Arguments: a signal, "look" or "names", the marker (or ""), then PGID:STARTED:BOOT of each group. Prints "left PID…",
# and with "names" a line "PID UID NAME" of each. A signal with + goes by sudo to those that are not the account's own.
# A process belongs to the tree if it is in such a group or in its session, if its environment has the marker, or if
# its parent belongs to it. A group of another boot of the target is gone. A leader with another start time is a
# stranger that got the number later; of a group whose leader has gone, only what started after it counts.
_SCRIPT = f"""
_sig=$1; _mark=$2; shift 2; _sudo=; _names=
case $_sig in *+) _sig=${{_sig%+}}; command -v sudo >/dev/null && _sudo=1;; names) _sig=look; _names=1;; esac
 _roots="$*"; _all=; _in=' '
exec 2>/dev/null
_boot=; read -r _boot </proc/sys/kernel/random/boot_id
for _d in /proc/[0-9]*; do
  _s=; read -r _s <"$_d/stat" || continue
  _p=${{_s%% *}}; set -- ${{_s##*) }}
  case $1 in Z|X) continue;; esac
  [ "$_p" = $$ ] || _all="$_all$_p $2 $3 $4 ${{20}}
"
done
for _r in $_roots; do
  _g=${{_r%%:*}}; _t=${{_r#*:}}; _b=${{_t#*:}}; _t=${{_t%%:*}}; _leader=
  [ -n "$_b" ] && [ -n "$_boot" ] && [ "$_b" != "$_boot" ] && continue
  set -- $_all
  while [ $# -gt 4 ]; do [ "$1" = "$_g" ] && _leader=$5; shift 5; done
  [ -n "$_leader" ] && [ "$_t" != 0 ] && [ "$_leader" != "$_t" ] && continue
  set -- $_all
  while [ $# -gt 4 ]; do
    if [ "$3" = "$_g" ] || [ "$4" = "$_g" ] || [ "$1" = "$_g" ]; then
      [ "$5" -ge "$_t" ] && _in="$_in$1 "
    fi
    shift 5
  done
done
if [ -n "$_mark" ]; then
  for _f in $(grep -lF "{ATTEMPT_ENV}=$_mark" /proc/[0-9]*/environ); do
    if tr '\\0' '\\n' <"$_f" | grep -qxF "{ATTEMPT_ENV}=$_mark"; then
      _p=${{_f#/proc/}}; _p=${{_p%/environ}}
      case $_all in "$_p "*|*"
$_p "*) case $_in in *" $_p "*) ;; *) _in="$_in$_p ";; esac;; esac
    fi
  done
fi
_more=1
while [ "$_more" = 1 ]; do
  _more=0
  set -- $_all
  while [ $# -gt 4 ]; do
    case $_in in
      *" $1 "*) ;;
      *" $2 "*) _in="$_in$1 "; _more=1;;
    esac
    shift 5
  done
done
if [ "$_sig" != look ] && [ "$_in" != ' ' ]; then
  kill -"$_sig" $_in
  [ "$_sig" = TERM ] && kill -CONT $_in
  _not=
  for _p in $_in; do kill -0 "$_p" || [ ! -d "/proc/$_p" ] || _not="$_not $_p"; done
  [ -n "$_not" ] && [ -n "$_sudo" ] && sudo -n kill -"$_sig" $_not </dev/null >/dev/null
fi
echo "left$_in"
if [ "$_names" = 1 ]; then
  for _p in $_in; do
    _n=; _u=
    while read -r _k _v _w; do case $_k in Name:) _n="$_v${{_w:+ $_w}}";; Uid:) _u=$_v;; esac; done <"/proc/$_p/status"
    [ -n "$_n" ] && echo "$_p $_u $_n"
  done
fi
"""


async def end_tree(
    targets: Targets,
    name: str,
    groups: Sequence[ProcessGroup],
    marker: str,
    grace_s: float,
    *,
    extra_s: float | None = None,
) -> bool | None:
    """End the groups on one target and every process that carries the marker. True: nothing is left; False: something
    is; None: it could not be looked (target unreachable). Takes at most ``grace_s`` + ``extra_s`` (8 s).
    """
    roots = [f"{group.pgid}:{group.started}:{group.boot}" for group in groups if group.pgid > 1]
    try:
        async with asyncio.timeout(grace_s + (EXTRA_S if extra_s is None else extra_s)):
            return not await _end(targets, name, roots, marker, grace_s)
    except TimeoutError:
        return None


async def _end(targets: Targets, name: str, roots: list[str], marker: str, grace_s: float) -> bool:
    async def look(signal: str) -> bool:
        return await _look(targets, name, [signal, marker, *roots])

    left = await look("TERM+")
    if left:
        left = await _wait(look, "look", grace_s)
    if left:
        # By sudo once only: each time that it is not allowed stands in the target's logs.
        left = await look("KILL+") and await _wait(look, "KILL", KILL_WAIT_S)
    return left


async def find_left(targets: Targets, name: str, groups: Sequence[ProcessGroup], marker: str) -> list[str] | None:
    """What of a tree is on one target: ``PID NAME (uid UID)`` of each process. Takes at most 3 s; None where it
    cannot be looked.
    """
    roots = [f"{group.pgid}:{group.started}:{group.boot}" for group in groups if group.pgid > 1]
    try:
        async with asyncio.timeout(NAMES_S):
            printed = await _ask(targets, name, ["names", marker, *roots])
    except TimeoutError:
        return None
    lines = [line.split(maxsplit=2) for line in printed.decode("utf-8", "replace").splitlines()[1:]]
    return [f"{words[0]} {words[2]} (uid {words[1]})" for words in lines if len(words) == 3]


async def _wait(look: Callable[[str], Awaitable[bool]], signal: str, limit_s: float) -> bool:
    """Whether something is left when time is up."""
    loop = asyncio.get_running_loop()
    end = loop.time() + limit_s
    interval = 0.02
    while True:
        if not await look(signal):
            return False
        remaining = end - loop.time()
        if remaining <= 0:
            return True
        await asyncio.sleep(min(interval, remaining))
        interval = min(interval * 2, LONGEST_LOOK_INTERVAL_S)


async def _look(targets: Targets, name: str, arguments: list[str]) -> bool:
    """Whether something of the tree was there; it has been sent the signal."""
    return len((await _ask(targets, name, arguments)).splitlines()[0].split()) > 1


async def _ask(targets: Targets, name: str, arguments: list[str]) -> bytes:
    """What the script prints. Tries again until it could look: signals sent twice do no harm. Raises SshFault for a
    target that is not configured.
    """
    targets.find(name)
    command = Command(["/bin/sh", "-c", _SCRIPT, "proctor-look", *arguments])
    interval = 0.1
    while True:
        printed = bytearray()

        async def keep(source: Source, data: bytes, printed: bytearray = printed) -> None:
            if source is Source.STDOUT:
                printed.extend(data)

        try:
            await targets.run(name, command, keep)
        except SshFault:
            printed.clear()
        if printed.split()[:1] == [b"left"]:
            return bytes(printed)
        await asyncio.sleep(interval)
        interval = min(interval * 2, 2.0)
