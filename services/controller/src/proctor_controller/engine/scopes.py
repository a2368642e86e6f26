"""What the expressions of one step may read, with hidden values and secrets: for orders and nested plans only."""

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proctor_common.errors import ProctorError
from proctor_controller.db.runs.scopes import load_scope, load_undone
from proctor_controller.db.sealing import Seal
from proctor_controller.db.session import Session
from proctor_controller.domain.runs.order_rendering import RenderFault
from proctor_controller.domain.runs.scope import Scope, step_scope
from proctor_controller.domain.runs.step import Step
from proctor_controller.domain.runs.step_rules import Rules

MAX_SECRET = 64 * 1024
_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,126}\Z")


class Scopes:
    """``secrets_dir``: a folder with one file a secret, named as plans refer to it; None: there are none."""

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
            secrets[name] = await self.secret(reference)
        names = {**shared.names, "params": {**params, **hidden}, "secrets": secrets}
        return step_scope(names, step, undone=await load_undone(db, step)), {"params": hidden, "secrets": secrets}

    async def secret(self, reference: str) -> str:
        """A stored secret's text. Raises RenderFault."""
        if self._secrets_dir is None:
            raise RenderFault(f"there is no secret {reference}: the controller has no folder of secrets (secrets_dir)")
        if not _NAME.match(reference):
            raise RenderFault(f"{reference[:60]!r} is not a secret's name: letters, digits, dots, dashes, underscores")
        try:
            data = await asyncio.to_thread((self._secrets_dir / reference).read_bytes)
            text = data.decode()
        except (OSError, UnicodeDecodeError):
            raise RenderFault(f"there is no secret {reference} in the controller's secrets_dir") from None
        if len(text) > MAX_SECRET:
            raise RenderFault(f"the secret {reference} has more than {MAX_SECRET} characters")
        return text.rstrip("\r\n")
