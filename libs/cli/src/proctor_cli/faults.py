"""Why a command cannot go on; each is shown in one line on standard error and has an exit code."""


class CommandFault(Exception):
    """A fault of a command, with its exit code."""

    exit_code = 3


class Usage(CommandFault):
    """The call's words are off."""

    exit_code = 2


class Unreachable(CommandFault):
    """The api does not answer."""


class Refused(CommandFault):
    """The api said no: its sentence, its code, its status and its list of faults."""

    def __init__(self, status: int, code: str, message: str, errors: list[dict[str, object]] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.errors = errors or []
        # A request that the api finds unacceptable was never started: for a script that is a rejection.
        self.exit_code = 1 if status in {404, 409, 413, 422} else 3

    def lines(self) -> list[str]:
        """The message, then each fault with its place."""
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
