"""The script by which /bin/sh on a target becomes a program, and how values reach it on standard input. No I/O.

It makes sure of a process group of its own, reads the values, prints one marker line and becomes the program. Every
login shell hands it on as it is, csh too: it is one line and holds no backslash and no ``!``.
"""

import re
from collections.abc import Collection, Mapping, Sequence

from proctor_agent.attempt import ATTEMPT_ENV

NOT_STARTED_CODE = 125
"""Exit code of the script when it could not get as far as the program."""

# What sh itself gives a meaning or a value, in whichever of them it is: dash, bash, busybox, mksh, ksh, zsh, yash.
_SPECIAL = re.compile(
    r"^(?:_|_pr\w*|_prv|IFS|OPT(?:IND|ARG|ERR)|PPID|E?[UG]ID|GROUPS|USER_ID|PGRP|LINENO|S?RANDOM|SECONDS|SHLVL|SHELLOPTS"
    r"|TMOUT|(?:OLD)?PWD|FUNC(?:NAME|NEST)|DIRSTACK|HIST\w*|EPOCH\w+|COMP\w*|(?:EXEC|GLOB)IGNORE|POSIXLY_CORRECT"
    r"|PIPESTATUS|COLUMNS|LINES|(?:BASH|KSH|ZSH|YASH)\w*)\Z"
)
_OWN = re.compile(r"^(?:_pr|SHLVL\Z)")

READ_STAT = "read -r _pr1 _pr2 _pr3 _pr4 _pr5 _pr6 </proc/self/stat; "
# A frame is its number of further lines, then its lines; the values are any text but NUL. Arguments come first, so
# that names which the shell must not set itself can be put before them, for env(1). The kind of a name: v: the shell
# sets it; e: env(1) does; k: hidden, so it must be the shell, which is tried first in a shell of its own; h: as v, but
# hidden.
_READ_VALUES = (
    "_prw=${IFS#??}; _prw=${_prw%${_prw#?}}; _prq=; "
    '_prv() { _prk=$1; IFS= read -r _prx || exit 125; while [ "$_prk" -gt 0 ]; do IFS= read -r _prl || exit 125; '
    '_prx="$_prx$_prw$_prl"; _prk=$((_prk-1)); done; }; '
    '_prf() { echo "$_prt env $_prn"; exit 125; }; '
    'IFS=" " read -r _pra _pre || exit 125; '
    'while [ "$_pra" -gt 0 ]; do read -r _prk || exit 125; _prv "$_prk"; set -- "$@" "$_prx"; _pra=$((_pra-1)); done; '
)
_SET_VALUES = (
    'while [ "$_pre" -gt 0 ]; do IFS=" " read -r _prn _prh _prk || exit 125; _prv "$_prk"; case $_prh in '
    'k) [ "$(export "$_prn=$_prx" && printenv "$_prn" && echo .)" = "$_prx$_prw." ] || _prf;; esac 2>/dev/null; '
    'case $_prh in e) false;; *) command export "$_prn=$_prx";; esac 2>/dev/null || case $_prh in '
    'h|k) _prf;; *) _prq=1; set -- "$_prn=$_prx" "$@";; esac; _pre=$((_pre-1)); done; '
    'if [ -z "$_prq" ]; then :; elif [ -x /usr/bin/env ]; then set -- /usr/bin/env "$@"; else set -- env "$@"; fi; '
    "unset _pra _pre _prn _prh _prk _prx _prl _prw _prq; "
)


def is_special(name: str) -> bool:
    """Whether a shell may give the variable a meaning of its own: it is set by env(1)."""
    return bool(_SPECIAL.match(name))


def is_own(name: str) -> bool:
    """Whether the script uses the name itself, or its last command changes it."""
    return bool(_OWN.match(name))


def quote(text: str) -> str:
    """A word for any login shell, for a text without backslashes, ``!`` and line ends (:func:`is_plain`)."""
    return "'" + text.replace("'", "'\"'\"'") + "'"


def is_plain(text: str) -> bool:
    """Whether every login shell takes the quoted text for what it is: inside single quotes a backslash counts to fish,
    ``!`` and line ends to csh.
    """
    return not any(each in text for each in "\\!\n\r")


def line(
    words: Sequence[str] | None, tag: tuple[str, str], *, marker: str | None, in_folder: bool, own_input: bool
) -> str:
    """What sshd hands to the login shell. ``words``: the program and its arguments, after the folder if ``in_folder``;
    None: they come on standard input. ``tag``: the two parts of what the marker line starts with.
    """
    # The tag is put together on the target, so that a login shell that prints its command line prints no tag.
    start = f"_prt={tag[0]}; _prt=$_prt:{tag[1]}; "
    # Start-up files that send the output elsewhere: nobody would know that the program runs.
    start += '[ -z "$_pr5" ] || [ -p /proc/self/fd/1 ] || [ -S /proc/self/fd/1 ] || exit 125; '
    if words is None:
        start += _READ_VALUES
    if in_folder:
        start += 'CDPATH= cd -- "$1" >/dev/null || { echo "$_prt cwd"; exit 125; }; shift; '
    if words is None:
        start += _SET_VALUES
    start += f'[ "$_pr5" = "$$" ] || {READ_STAT}'
    start += "read -r _prb </proc/sys/kernel/random/boot_id; "
    start += 'echo "$_prt $$ $_pr5 ${_prb:-0} $_pr6"; unset _pr1 _pr2 _pr3 _pr4 _pr5 _pr6 _prb _prt _prm; '
    start += 'exec "$@"' + ("" if own_input else " </dev/null")
    script = f"{ATTEMPT_ENV}={marker}; export {ATTEMPT_ENV}; " if marker is not None else ""
    script += f"_prm={quote(start)}; {READ_STAT}"
    script += (
        'if [ "$_pr5" = "$$" ]; then :; elif command -v setsid >/dev/null; then '
        'exec setsid /bin/sh -c "$_prm" proctor "$@"; fi; eval "$_prm"'
    )
    return f"exec /bin/sh -c {quote(script)} proctor" + "".join(f" {quote(word)}" for word in words or ())


def frames(words: Sequence[str], env: Mapping[str, str], hidden: Collection[str]) -> bytes:
    """The words and the environment as they travel on standard input. ``hidden``: names whose value nobody may see."""
    parts = [f"{len(words)} {len(env)}\n"]
    parts.extend(f"{word.count(chr(10))}\n{word}\n" for word in words)
    kinds = {name: _kind(name, name in hidden) for name in env}
    # Hidden special ones first: what finds out whether they can be set is looked up by the PATH of the login.
    for name in sorted(env, key=lambda name: kinds[name] != "k"):
        parts.append(f"{name} {kinds[name]} {env[name].count(chr(10))}\n{env[name]}\n")
    return "".join(parts).encode()


def _kind(name: str, hidden: bool) -> str:
    if is_special(name):
        return "k" if hidden else "e"
    return "h" if hidden else "v"
