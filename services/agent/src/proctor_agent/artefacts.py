"""Files that a step leaves on its target: found by patterns with size and SHA-256, and read in pieces."""

from collections.abc import Sequence

from pydantic import BaseModel

from proctor_agent.plugin import Context, MethodFault, Tail
from proctor_agent.ssh import Command, Targets
from proctor_common.states import Source

MAX_ARTEFACTS = 1000
MAX_LISTED = 48 * 1024
"""At most so many bytes of artefacts' names go into the output, which keeps 64 KiB."""
LIST_SECONDS = 120.0
NO_FILE = 3
"""Exit code of the reading script when the path is not a regular file."""

# Prints path, size and SHA-256 of each match, each ended by NUL, and an empty path before each pattern. A pattern is
# expanded, never evaluated. $1 "inside": paths stay relative, and files that a symbolic link leads to outside of the
# folder are left out; else paths become absolute.
_LIST = """
root=$(pwd -P) || exit 1
inside=$1
shift
IFS=
for pattern in "$@"; do
  printf '\\0'
  for path in $pattern; do
    { [ -f "$path" ] && [ ! -L "$path" ]; } || continue
    case $path in /*) folder=${path%/*}/ ;; */*) folder=./${path%/*} ;; *) folder=. ;; esac
    folder=$(cd -P -- "$folder" && pwd -P) || continue
    if [ -n "$inside" ]; then
      case $folder/ in "$root"/*) ;; *) continue ;; esac
      shown=$path
    else
      shown=${folder%/}/${path##*/}
    fi
    sum=$(sha256sum <"$path") || exit 1
    size=$(wc -c <"$path") || exit 1
    printf '%s\\0%s\\0%s\\0' "$shown" "$size" "${sum%% *}"
  done
done
"""

# Prints the size of file $1 on a line, then at most $3 bytes of it from byte $2 (counted from 1).
_READ = """
{ [ -f "$1" ] && [ ! -L "$1" ]; } || exit 3
size=$(wc -c <"$1") || exit 3
printf '%s\\n' "$size"
tail -c "+$2" <"$1" | head -c "$3"
"""


class Artefact(BaseModel):
    """A file that a step made; ``path`` is absolute or relative to the workspace, ``size`` in bytes."""

    path: str
    size: int
    sha256: str


async def find_artefacts(
    context: Context, patterns: Sequence[str], *, inside: str | None = None
) -> tuple[list[Artefact], list[str]]:
    """The files that match, each once and sorted, and the patterns that match nothing. ``inside``: search only this
    folder of the target and give relative paths; None: anywhere, relative patterns start where the login shell does.

    Raises MethodFault ``artefacts_failed``, ``too_many_artefacts``, or what Context.run raises.
    """
    if not patterns:
        return [], []
    confined = "" if inside is None else "inside"
    done = await context.shell(
        _LIST, confined, *patterns, cwd=inside, log=False, keep=4 * 1024 * 1024, timeout_s=LIST_SECONDS
    )
    if not done.ok or done.cut:
        raise MethodFault(
            "artefacts_failed", f"cannot list the artefacts: {done.last_error_line or done.describe_end()}"
        )
    found, missing = parse_artefacts(done.stdout, patterns)
    if len(found) > MAX_ARTEFACTS or sum(len(artefact.path) for artefact in found) > MAX_LISTED:
        raise MethodFault("too_many_artefacts", f"the patterns match {len(found)} files, at most {MAX_ARTEFACTS} go")
    return found, missing


def parse_artefacts(printed: bytes, patterns: Sequence[str]) -> tuple[list[Artefact], list[str]]:
    """The artefacts in the script's output, each once and in order, and the patterns that match nothing."""
    fields = iter(printed.decode("utf-8", "replace").split("\0")[:-1])
    found: dict[str, Artefact] = {}
    counts: list[int] = []
    for path in fields:
        if not path:
            counts.append(0)
            continue
        size, digest = next(fields), next(fields)
        found[path] = Artefact(path=path, size=int(size), sha256=digest)
        counts[-1] += 1
    return list(found.values()), [pattern for pattern, count in zip(patterns, counts, strict=True) if count == 0]


async def read_piece(targets: Targets, target: str, path: str, offset: int, length: int) -> tuple[int, bytes]:
    """The file's size now, and at most ``length`` bytes of it from ``offset``.

    Raises FileNotFoundError if there is no such file; SshFault.
    """
    out, err = Tail(length + 64), Tail(1024)

    async def sink(source: Source, data: bytes) -> None:
        (out if source is Source.STDOUT else err).add(data)

    command = Command(("/bin/sh", "-c", _READ, "sh", path, str(offset + 1), str(length)))
    end = await targets.run(target, command, sink)
    size, found, data = out.data.partition(b"\n")
    if end.code != 0 or not found:
        raise FileNotFoundError(path)
    return int(size), data
