"""Why a command cannot go on: each fault is one line on standard error and has an exit code."""


class CommandFault(Exception):
    """A fault of a command, with its exit code."""

    exit_code = 3


class Usage(CommandFault):
    """The command line is wrong."""

    exit_code = 2


class Unreachable(CommandFault):
    """The api does not answer."""


class Stopped(CommandFault):
    """A signal came before there was a run to follow, or after it was left alone; ``exit_code``: 128 + its number."""

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Refused(CommandFault):
    """The api refused the request: its sentence, code, status and list of faults.

    Exit code: for a submission (``starting``) 2 for 400, 404, 409, 413 and 422: nothing was started, which differs from
    a run that failed (1). Otherwise 2 for 400, 422 and an unknown step, as an option's value was wrong; 1 for 404, 409
    and 413. For everything else 3.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        errors: list[dict[str, object]] | None = None,
        *,
        what: str = "",
        starting: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.errors = errors or []
        if status in {400, 422} or what == "step" or (starting and status in {404, 409, 413}):
            self.exit_code = 2
        else:
            self.exit_code = 1 if status in {404, 409, 413} else 3

    def lines(self) -> list[str]:
        """The message, then each fault with its location."""
        if len(self.errors) <= 1 and not any(e.get("path") or e.get("line") for e in self.errors):
            return [str(self)]
        shown = [str(self)] if not self.errors else []
        for error in self.errors:
            place = f"line {error['line']}, column {error.get('column')}: " if error.get("line") else ""
            path, message = str(error.get("path") or ""), str(error.get("message", ""))
            if path and not message.startswith((f"{path}: ", f"{path.rsplit('.', 1)[-1]}: ")):
                message = f"{path}: {message}"
            shown.append(f"{place}{message}")
        return shown
