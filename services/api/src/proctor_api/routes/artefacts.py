"""``/v1/runs/{run}/artefacts``: files that steps left on their targets, listed and handed out."""

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
    """The file cannot be handed out to its end: the connection is closed, so that the client sees it."""


@routes.get("/v1/runs/{run}/artefacts", summary="A run's artefacts", openapi_extra=needs(Role.VIEWER))
async def list_artefacts(
    request: Request, run: RunRef, limit: Limit = 100, cursor: After = None
) -> ViewResponse[ArtefactsPage]:
    """The files that the plan's `artefacts` and builds have found, with their size and SHA-256 when their step ended.
    They stay where they are, on the target.
    """
    return await pass_on(request, calls.LIST_ARTEFACTS, calls.ArtefactList(run=run, limit=limit, cursor=cursor))


@routes.get(
    "/v1/runs/{run}/artefacts/{artefact}",
    summary="One artefact's bytes",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}},
    openapi_extra=needs(Role.VIEWER),
)
async def get_artefact(request: Request, run: RunRef, artefact: ArtefactRef) -> Response:
    """The file as it is on the target. One that is gone or has changed since its step ended is a 409, as is one whose
    agent is away; where it changes while it is read, the answer breaks off.
    """
    actor = caller_of(request).actor
    first = await _piece(request, actor, run, artefact, 0)
    about = first.artefact
    if about.size <= len(first.data) * 3 // 4 and not _is_whole(first):
        raise ProctorError(Code.CONFLICT, f"{about.path} has changed on its target since the step ended")
    headers = {
        # It comes from a machine under test: no browser is to show it as a page of ours.
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
            # The last piece is held back until all of it is known to be right.
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
