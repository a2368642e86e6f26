"""The Test API's refusals, with the codes that its clients know: 400, 401, 403, 404; never 409 or 422 here."""

from proctor_common.errors import Code, ProctorError


class Referred(ProctorError):
    """Others still refer to it: answered 401, as the original did, though nobody asks for a token by it."""

    @property
    def status(self) -> int:
        return 401


def bad(message: str) -> ProctorError:
    """400: the request itself is wrong."""
    return ProctorError(Code.BAD_REQUEST, message)


def forbidden(message: str) -> ProctorError:
    """403: a name that exists, nothing to update, a case into an unknown project."""
    return ProctorError(Code.FORBIDDEN, message)


def unknown(what: str, name: object) -> ProctorError:
    """404"""
    return ProctorError(Code.NOT_FOUND, f"no such {what}: {str(name)[:200]}")


def refused(message: str) -> ProctorError:
    """404 in other words: what is asked for is there, but not to be shown."""
    return ProctorError(Code.NOT_FOUND, message)


def referred(message: str) -> ProctorError:
    """401: it cannot be deleted."""
    return Referred(Code.CONFLICT, message)
