"""``/v1/runs/{run}/artefacts``: list and download files that steps left on their targets."""

import base64
import hashlib
from collections.abc import AsyncIterator

import structlog
from fastapi import Request, Response

from proctor_api.routes.guard import ViewResponse, caller_of, context_of, needs, pass_on, router
from proctor_api.routes.logs import PatientResponse
from proctor_api.routes.models import After, ArtefactRef, Limit, RunRef
from proctor_common.errors import Code, ProctorError
from proctor_common.messages.calls import runs as calls
from proctor_common.messages.calls.operation import Actor
from proctor_common.messages.pages import ArtefactsPage
from proctor_common.messages.views import ArtefactPiece
from proctor_common.states import Role

log = structlog.get_logger(__name__)
routes = router("runs")


class BrokenOff(Exception):
    """The rest of the file cannot be sent: the connection is closed, so that the client notices."""


@routes.get("/v1/runs/{run}/artefacts", summary="List a run's artefacts", openapi_extra=needs(Role.VIEWER))
async def list_artefacts(
    request: Request, run: RunRef, limit: Limit = 100, cursor: After = None
) -> ViewResponse[ArtefactsPage]:
    """Files that the plan's `artefacts` and build methods found, with size and SHA-256 at the end of their step. The
    files themselves stay on the target.
    """
    return await pass_on(request, calls.LIST_ARTEFACTS, calls.ArtefactList(run=run, limit=limit, cursor=cursor))


@routes.get(
    "/v1/runs/{run}/artefacts/{artefact}",
    summary="Download an artefact",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}},
    openapi_extra=needs(Role.VIEWER),
)
async def get_artefact(request: Request, run: RunRef, artefact: ArtefactRef) -> Response:
    """The file, read from the target now. 409 if it is gone or has changed since its step ended, or if its agent is not
    available. If it changes while it is read, the connection is closed before the end.
    """
    actor = caller_of(request).actor
    first = await _piece(request, actor, run, artefact, 0)
    about = first.artefact
    if about.size <= len(first.data) * 3 // 4 and not _is_whole(first):
        raise ProctorError(Code.CONFLICT, f"{about.path} has changed on its target since the step ended")
    headers = {
        # The file comes from a machine under test: no browser may show it as a page of this origin.
        "Content-Disposition": "attachment",
        "Content-Length": str(about.size),
        "Repr-Digest": f"sha-256=:{base64.b64encode(_digest(about.sha256)).decode()}:",
    }

    async def parts() -> AsyncIterator[bytes]:
        seen, told = hashlib.sha256(), 0
        piece = first
        while True:
            data = base64.b64decode(piece.data)
            seen.update(data)
            told += len(data)
            # The last piece is sent only after the checksum of the whole file matches.
            if told < about.size and data:
                yield data
                piece = await _piece(request, actor, run, artefact, told)
                continue
            if told != about.size or seen.hexdigest() != about.sha256:
                log.warning("artefact_changed", run=run, artefact=artefact)
                raise BrokenOff(f"artefact {artefact} has changed while it was read")
            yield data
            return

    patience = context_of(request).settings.slow_viewer
    return PatientResponse(parts(), "application/octet-stream", patience, headers)


async def _piece(request: Request, actor: Actor, run: str, artefact: str, offset: int) -> ArtefactPiece:
    body = calls.ArtefactRead(run=run, artefact=artefact, offset=offset)
    return await context_of(request).controllers.ask(calls.READ_ARTEFACT, actor, body)


def _is_whole(piece: ArtefactPiece) -> bool:
    return hashlib.sha256(base64.b64decode(piece.data)).hexdigest() == piece.artefact.sha256


def _digest(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
