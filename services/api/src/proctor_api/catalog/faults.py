"""Errors of the Test API, with the status codes that its clients know: 400, 401, 403, 404."""

from proctor_common.errors import Code, ProctorError


class Referred(ProctorError):
    """Other records still refer to the record. 401, as in OPNFV's Test API, although no token would help."""

    @property
    def status(self) -> int:
        return 401


def bad(message: str) -> ProctorError:
    """400: the request is malformed or a value is invalid."""
    return ProctorError(Code.BAD_REQUEST, message)


def forbidden(message: str) -> ProctorError:
    """403: the name exists, nothing would change, or a test case's project is unknown."""
    return ProctorError(Code.FORBIDDEN, message)


def unknown(what: str, name: object) -> ProctorError:
    """404: there is no such record."""
    return ProctorError(Code.NOT_FOUND, f"no such {what}: {str(name)[:200]}")


def refused(message: str) -> ProctorError:
    """404 with another message: there is nothing to show."""
    return ProctorError(Code.NOT_FOUND, message)


def referred(message: str) -> ProctorError:
    """401: it cannot be deleted while others refer to it."""
    return Referred(Code.CONFLICT, message)
