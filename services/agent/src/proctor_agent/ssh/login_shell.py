"""Which login shell a target's account has, and the line by which it becomes a program without /bin/sh between. No I/O.

Any login shell takes ``exec /bin/sh -c SCRIPT …``. One that is known to do the same with the script as /bin/sh does
may run it itself, and saves a shell's start with each command (docs/adr/0025). It is known by two questions, asked
beside the commands: the first is a line for any shell, and asks who reads it; the second is the line that is meant
for that shell, with a look at what its start-up files have made of it. Both become the same program, which prints
what it was given; only if that is the same the shell is trusted. Whatever else is answered means /bin/sh.
"""

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from proctor_agent.ssh.command import NOT_STARTED_CODE, Command, WireCommand, build, quote


class LoginShell(StrEnum):
    """A login shell that may run the script itself."""

    BASH = "bash"
    DASH = "dash"
    BUSYBOX = "busybox"


# Values of these are more than text to bash, or cannot be set: /bin/sh exports them.
_BASH_OWN = re.compile(
    r"^(?:_|BASH.*|COMP_.*|LANG|LC_.*|IFS|E?UID|PPID|GROUPS|SHELLOPTS|SHLVL|POSIXLY_CORRECT|S?RANDOM|SECONDS|EPOCH.*"
    r"|LINENO|DIRSTACK|FUNC.*|PIPESTATUS|COPROC|MAPFILE|TMOUT|EXECIGNORE|GLOBIGNORE|OPT.*|HIST.*|histchars|CHILD_MAX"
    r"|IGNOREEOF|ignoreeof|COLUMNS|LINES)\Z"
)

# What start-up files may have changed since the shell was asked. An assignment can be neither alias nor function, and
# this one makes set, unset, trap, export, exec and exit bash's own whatever functions there are; with unset the other
# words become bash's own again, or the shell ends before it has started anything (as it does where it may not set
# IFS). A quoted word is no alias; what stands on the next line is read when there are none left.
_BASH_CLEAN = (
    "case $- in *a*) \\set +a;; esac; POSIXLY_CORRECT=${POSIXLY_CORRECT-}; \\set +efkuvxCEPTt; IFS=$IFS; "
    f"\\unset -f read printf command cd '[' unalias shopt hash setsid || \\exit {NOT_STARTED_CODE}; \\set --",
    "; \\trap - DEBUG ERR RETURN EXIT; \\unalias -a; \\shopt -u cdable_vars execfail; \\hash -r; "
    f"case $- in *r*) \\exit {NOT_STARTED_CODE};; esac\n",
)

# Of a program that the kernel takes for none, bash becomes the interpreter, and a relative path it makes absolute,
# which a script sees; /bin/sh does neither. So bash looks for the file as exec will, and at its first bytes, and
# what is not sure to start alike is left to /bin/sh with all its messages.
_BASH_LOOK = """_prf=; case $1 in
/*) _prf=$1;;
*/*) ;;
*) case ${PATH-'~'} in *'~'*) ;; *) _prp=$PATH:; while [ "$_prp" ]; do _prd=${_prp%%:*}; _prp=${_prp#*:}
if [ -f "${_prd:-.}/$1" ] && [ -x "${_prd:-.}/$1" ]; then case $_prd in /*) _prf=$_prd/$1;; esac; break; fi
done;; esac;; esac
_prh=; if [ -f "$_prf" ] && [ -x "$_prf" ] && [ -r "$_prf" ]; then IFS= read -r -n 4 _prh <"$_prf"; fi
case $_prh in
?ELF) ;;
'#!'*) IFS='\t ' read -r -n 250 _prh _prd <"$_prf"; _prh=${_prh#'#!'}; [ "$_prh" ] || _prh=${_prd%%[\t ]*}
[ -f "$_prh" ] && [ -x "$_prh" ] || _prf=;;
*) _prf=;; esac
[ "$_prf" ] || set -- /bin/sh -c 'exec "$@"' proctor "$@"
unset _prf _prp _prd _prh
"""

_WORDS = (
    *("set", "trap", "unset", "unalias", "read", "printf", "export", "command", "cd", "exit", "break", "exec", "["),
    *("if", "case", "while", "do", "done"),
)
_BASH_WORDS = (*_WORDS, "shopt", "hash", "type", "builtin")
_AS_USUAL = re.compile(r"^[hBcs]*\Z")
_IGNORED = re.compile(r"^trap -- '' \S+\Z")
_NAMED = re.compile(r"^(\S+) is a (?:special )?shell (?:builtin|keyword)\Z")

_TRICKY = " '\"\\n\n\\\t$HOME \x01\x7f*ü\n\n"
_OWN_ENV = "PROCTOR_PROBE"
_ALIKE = (b"Umask:", b"Uid:", b"Gid:", b"Groups:", b"SigBlk:", b"SigIgn:", b"Cap", b"NoNewPrivs:", b"Cpus_allowed:")
"""What two commands of one account have alike in /proc/self/status."""
_UNLIKE = (b"_=", b"SHLVL=", b"SSH_ORIGINAL_COMMAND=")
"""bash drops the first where it was given one, busybox counts its shells, sshd tells forced commands the line."""


def line(wire: WireCommand, shell: LoginShell | None) -> str:
    """The line for the account's login shell; None: an unknown one."""
    if shell is None or not may_export(shell, wire.names):
        return wire.line
    if shell is LoginShell.BASH:
        return f"{_BASH_CLEAN[0]}{wire.words}{_BASH_CLEAN[1]}{wire.setup}{_BASH_LOOK}{wire.become}"
    # They read no start-up files for a command, and leave a program that is none to /bin/sh as the script there does.
    return f"set --{wire.words}; {wire.setup}{wire.become}"


def may_export(shell: LoginShell | None, names: Iterable[str]) -> bool:
    """Whether the shell itself can give its program environment variables of these names as they are."""
    return shell is not LoginShell.BASH or not any(map(_BASH_OWN.match, names))


@dataclass(frozen=True, slots=True)
class Question:
    """A command that shows its surroundings, its line, and what comes before the answer in the noise."""

    wire: WireCommand
    line: str
    tag: bytes


def first_question() -> Question:
    """Who reads this line, and how a command is started by /bin/sh. The line is one that csh and fish take too."""
    wire = build(_shows(tried=False))
    first, second = secrets.token_hex(4), secrets.token_hex(8)
    # A shell becomes its last command; this is not the last, so that its parent is the one that reads the line.
    who = f'echo {first}":"{second} "$(readlink /proc/$PPID/exe)" "$(readlink /proc/$$/exe)"'
    return Question(wire, f"/bin/sh -c '{who}'; {wire.line}", f"{first}:{second} ".encode())


def second_question(shell: LoginShell) -> Question:
    """What the shell makes of the words that the script uses, and how a command is started by itself."""
    wire = build(_shows(tried=True))
    first, second = secrets.token_hex(4), secrets.token_hex(8)
    if shell is LoginShell.BASH:
        look = f"\\trap; \\builtin type -t {_words(_BASH_WORDS)}"
    else:
        look = f"trap; type {_words(_WORDS)}"
    # HUSH_VERSION: busybox has another shell, whose syntax is less. EXECIGNORE: files that bash does not find.
    look = f'\\printf "%s:%s %s\\n" {first} {second} "$-${{HUSH_VERSION-}}${{EXECIGNORE-}}"; {look}'
    return Question(wire, f"{look}\n{line(wire, shell)}", f"{first}:{second} ".encode())


def who_reads(question: Question, noise: bytes) -> LoginShell | None:
    """The answer to the first question, if it is a shell that may run the script itself."""
    told = _after(question.tag, noise).split("\n", 1)[0].split(" ")
    if len(told) != 2 or not all(path.startswith("/") for path in told):
        return None
    reader, sh = told
    name = reader.rsplit("/", 1)[1]
    if name not in list(LoginShell):
        return None
    if name == LoginShell.BUSYBOX and reader != sh:
        # It may have programs built in, which /bin/sh would not take.
        return None
    return LoginShell(name)


def is_untouched(shell: LoginShell, question: Question, noise: bytes) -> bool:
    """Whether by the answer to the second question the shell's words are its own, and its options the usual ones."""
    told = _after(question.tag, noise).split("\n")
    if not _AS_USUAL.match(told[0]) or told[-1] != "":
        return False
    rest = [text for text in told[1:-1] if not _IGNORED.match(text)]
    if shell is LoginShell.BASH:
        return len(rest) == len(_BASH_WORDS) and set(rest) <= {"builtin", "keyword"}
    named = [found[1] if (found := _NAMED.match(text)) else None for text in rest]
    return tuple(named) == _WORDS


def are_alike(by_sh: bytes, by_shell: bytes) -> bool:
    """Whether the programs of both questions were given the same: environment, limits, ids, signals, umask."""
    first, second = _surroundings(by_sh), _surroundings(by_shell)
    tried = f"{_OWN_ENV}={_TRICKY}".encode()
    return first is not None and second is not None and tried in second[0] and (first[0] | {tried}, first[1]) == second


def _words(words: Iterable[str]) -> str:
    return " ".join(map(quote, words))


def _shows(*, tried: bool) -> Command:
    env = {_OWN_ENV: _TRICKY} if tried else {}
    return Command(["cat", "/proc/self/environ", "/proc/self/limits", "/proc/self/status"], env)


def _surroundings(printed: bytes) -> tuple[frozenset[bytes], list[bytes]] | None:
    *environment, rest = printed.split(b"\0")
    told = [text for text in rest.split(b"\n") if text.startswith((b"Max ", *_ALIKE))]
    if not environment or not any(text.startswith(b"Max ") for text in told):
        return None
    return frozenset(text for text in environment if not text.startswith(_UNLIKE)), told


def _after(tag: bytes, noise: bytes) -> str:
    _, _, told = noise.rpartition(tag)
    return told.decode(errors="replace")
