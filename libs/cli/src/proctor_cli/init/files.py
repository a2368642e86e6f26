"""Files that are made once: private, written completely or not at all, never overwritten."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from proctor_cli.faults import CommandFault


class CannotKeep(CommandFault):
    """A file or folder cannot be made, or is not safe for a secret."""

    exit_code = 1


def make_private_folder(path: Path) -> Path:
    """Make a folder that only its owner may enter; an existing one must belong to the caller and is closed to others.

    Raises CannotKeep.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
        if found.st_uid != os.geteuid():
            raise CannotKeep(f"{path} belongs to another user (uid {found.st_uid})")
        if found.st_mode & 0o077:
            path.chmod(0o700)
    except OSError as fault:
        raise CannotKeep(f"cannot make {path}: {fault.strerror}") from None
    return path


def keep_once(path: Path, make: Callable[[], str | bytes]) -> bytes:
    """The file's content; if there is no file, it is made first (0600) from what ``make`` returns.

    Two callers at the same time get the same content. Raises CannotKeep.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    except OSError as fault:
        raise CannotKeep(f"cannot read {path}: {fault.strerror}") from None
    made = make()
    content = made.encode() if isinstance(made, str) else made
    try:
        temporary = _write_beside(path, content)
        try:
            os.link(temporary, path)  # fails if the file exists by now: the first one is kept
        except FileExistsError:
            return path.read_bytes()
        finally:
            temporary.unlink()
        _sync_folder(path.parent)
    except OSError as fault:
        raise CannotKeep(f"cannot write {path}: {fault.strerror}") from None
    return content


def replace(path: Path, content: str | bytes) -> None:
    """Write a file that is derived from others (0600); a reader sees the former content or the new one.

    Raises CannotKeep.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        _write_beside(path, data).replace(path)
    except OSError as fault:
        raise CannotKeep(f"cannot write {path}: {fault.strerror}") from None


def _write_beside(path: Path, content: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
