"""Begins the runs of nested plans: planned as any other, stored only while their step is running."""

from proctor_controller.db.hosts.candidates import read_clock
from proctor_controller.db.runs.submissions import DuplicateRun
from proctor_controller.db.session import session
from proctor_controller.engine.children import Nested
from proctor_controller.engine.engine import Engine
from proctor_controller.engine.submission.planning import Request, plan_run
from proctor_controller.engine.submission.submit import Unwanted, submit


class NestedRuns:
    """What ``Children`` begins runs with."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def begin(self, nested: Nested) -> None:
        """Store and begin a child, unless it is there already or nobody waits for it any more.

        Raises ProctorError: its plan cannot be run so.
        """
        request = Request(
            run=nested.run,
            plan=nested.plan,
            parameters=nested.parameters,
            group=nested.group,
            # What is nested below it again: a plan of the run's group, or of nobody.
            groups=None if nested.group is None else (nested.group, None),
            created_by=nested.created_by,
            parent=nested.parent,
            parent_step=nested.parent_step,
            depth=nested.depth,
            # The version was fixed when its parent was submitted: it is run although it was deleted since.
            deleted=True,
        )
        async with session(self._engine.database) as db:
            try:
                spec = await plan_run(self._engine, db, request)
                await submit(self._engine, db, spec, await read_clock(db))
            except (DuplicateRun, Unwanted):
                return
