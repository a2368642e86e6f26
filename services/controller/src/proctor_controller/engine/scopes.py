"""What the expressions of one step may read, with hidden values and secrets: for orders and nested plans only."""

import asyncio
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proctor_common.errors import ProctorError
from proctor_common.ids import GROUP_NAME
from proctor_controller.db.runs.scopes import load_scope, load_undone
from proctor_controller.db.sealing import Seal
from proctor_controller.db.session import Session
from proctor_controller.domain.runs.order_rendering import RenderFault
from proctor_controller.domain.runs.scope import Scope, step_scope
from proctor_controller.domain.runs.step import Step
from proctor_controller.domain.runs.step_rules import Rules

MAX_SECRET = 64 * 1024
_SHARED = "shared"
_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,126}\Z")


class Scopes:
    """``secrets_dir``: a folder with one file a secret, named as plans refer to it; None: there are none.

    Those in its folder GROUP are for runs of that group; those at its top for runs without a group, and for the groups
    that its file ``shared`` names.
    """

    def __init__(self, seal: Seal, secrets_dir: Path | None) -> None:
        self._seal = seal
        self._secrets_dir = secrets_dir

    async def of_step(self, db: Session, step: Step, rules: Rules) -> tuple[Scope, Mapping[str, Any]]:
        """The scope, and everything hidden in it. Raises RenderFault for a secret that is not there."""
        shared = await load_scope(db, step.run, rules.refs)
        if shared is None:
            raise RenderFault("the run is gone")
        try:
            opened = self._seal.open(shared.sealed, step.run) if shared.sealed is not None else {}
        except ProctorError as fault:
            raise RenderFault(f"hidden parameters cannot be read: {fault.message}") from None
        params = shared.names["params"]
        hidden = {name: value for name, value in opened.items() if name in params}
        # Beside the stored ones: those that stand in the plan's own text.
        secrets = dict(opened.get("~secrets", {}))
        for name, reference in rules.secrets.items():
            secrets[name] = await self.secret(reference, shared.group)
        names = {**shared.names, "params": {**params, **hidden}, "secrets": secrets}
        return step_scope(names, step, undone=await load_undone(db, step)), {"params": hidden, "secrets": secrets}

    async def secret(self, reference: str, group: str | None) -> str:
        """A stored secret's text, for a run of ``group``. Raises RenderFault, the same for one that others have."""
        if self._secrets_dir is None:
            raise RenderFault(f"there is no secret {reference}: the controller has no folder of secrets (secrets_dir)")
        if not _NAME.match(reference):
            raise RenderFault(f"{reference[:60]!r} is not a secret's name: letters, digits, dots, dashes, underscores")
        try:
            data = await asyncio.to_thread(_find, self._secrets_dir, reference, group)
            text = data.decode()
        except (OSError, RuntimeError, UnicodeDecodeError):
            whose = f"runs of group {group}" if group else "runs without a group"
            place = f"{group}/{reference}" if group else reference
            raise RenderFault(
                f"there is no secret {reference} for {whose} ({place} in the controller's secrets_dir)"
            ) from None
        if len(text) > MAX_SECRET:
            raise RenderFault(f"the secret {reference} has more than {MAX_SECRET} characters")
        return text.rstrip("\r\n")


def _find(folder: Path, reference: str, group: str | None) -> bytes:
    """The group's own file, else the one at the top where that is for it. Raises OSError, RuntimeError (a circle of
    links) where there is none.
    """
    top = folder.resolve()
    if group is not None:
        own = (top / group).resolve()
        if GROUP_NAME.match(group) and own.is_relative_to(top):
            try:
                return _read(own, reference)
            except (FileNotFoundError, NotADirectoryError):
                pass
        if group not in _read(top, _SHARED).decode().split():
            raise FileNotFoundError(reference)
    if reference == _SHARED:
        raise FileNotFoundError(reference)
    return _read(top, reference)


def _read(folder: Path, name: str) -> bytes:
    """A file that lies in the folder, wherever links lead: who may write one group's folder reads no other's by one."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder):
        raise PermissionError(name)
    # What is no file, a pipe say, is neither waited for nor read.
    with open(path, "rb", opener=lambda found, flags: os.open(found, flags | os.O_NONBLOCK | os.O_NOFOLLOW)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise FileNotFoundError(name)
        return file.read(4 * MAX_SECRET + 4)
