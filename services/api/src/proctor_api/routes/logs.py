"""``GET /v1/runs/{run}/logs``: what a run has logged so far, streamed by the reader that websocket tails use too."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Literal

from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from proctor_api.logs.cursor import BadCursor
from proctor_api.logs.index import load_index, require_step
from proctor_api.logs.order import Gap, LogPiece
from proctor_api.logs.tailing import start_of_tail
from proctor_api.logs.viewer import Kind, LogFrame, Viewer
from proctor_api.routes.guard import caller_of, context_of, needs, router
from proctor_api.routes.models import RunRef
from proctor_common.bus import BusError
from proctor_common.errors import Code, ProctorError
from proctor_common.states import Role

routes = router("runs")

FORMATS = "`text`: UTF-8; `ndjson`: frames as on the websocket; `raw`: the bytes as logged"
Format = Annotated[Literal["text", "ndjson", "raw"], Query(description=FORMATS)]
MEDIA = {"text": "text/plain; charset=utf-8", "ndjson": "application/x-ndjson", "raw": "application/octet-stream"}
MAX_TAIL = 100_000


class PatientResponse(StreamingResponse):
    """A stream that ends when its client reads nothing for ``patience`` seconds."""

    def __init__(
        self,
        content: AsyncIterator[bytes],
        media_type: str,
        patience: float,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_soon(message: dict[str, object]) -> None:
            async with asyncio.timeout(self._patience):
                await send(message)

        await super().__call__(scope, receive, send_soon)  # type: ignore[arg-type]


@routes.get(
    "/v1/runs/{run}/logs",
    summary="Show a run's log",
    response_class=Response,
    responses={
        200: {"content": {media: {"schema": {"type": "string"}} for media in ("text/plain", *list(MEDIA.values())[1:])}}
    },
    openapi_extra=needs(Role.VIEWER),
)
async def get_logs(
    request: Request,
    run: RunRef,
    *,
    step: Annotated[str | None, Query(max_length=300, description="Only this step, by name or id")] = None,
    tail: Annotated[int | None, Query(ge=1, le=MAX_TAIL, description="Only this many lines from the end")] = None,
    after: Annotated[str | None, Query(max_length=4096, description="Only what follows this frame's cursor")] = None,
    format: Format = "text",
) -> Response:
    """What the run has logged so far; the answer does not wait for more. A line (`ndjson`: a gap frame) stands for
    lines that can no longer be shown. 404 for an unknown run or step; 400 for a bad cursor, or `tail` with `after`.
    """
    context, actor = context_of(request), caller_of(request).actor
    index = await load_index(context.controllers, actor, run)
    if tail is not None and after is not None:
        raise ProctorError(Code.BAD_REQUEST, "tail and after exclude each other")
    await require_step(context.controllers, actor, index, step or None)

    async def frames() -> AsyncIterator[LogFrame]:
        async with context.feeds.open(index.run) as feed:
            viewer = Viewer(feed, context.bus, step=step, follow=False, events=False)
            start = await start_of_tail(feed, context.bus, step, tail) if tail is not None else None
            await viewer.open(after or None, start.cursor if start is not None else None)
            skip = start.skip_lines if start is not None else 0
            async for frame in viewer.frames():
                if frame.kind is Kind.IDLE:
                    continue
                shown: LogFrame | None = frame
                if skip:
                    shown, skip = viewer.without_lines(frame, skip)
                if shown is not None:
                    yield shown

    stream = frames()
    try:
        # The first frame shows whether the log can be read, while the answer can still be an error.
        first = await anext(stream, None)
    except BadCursor as fault:
        raise ProctorError(Code.BAD_REQUEST, f"after: {fault}") from fault
    except BusError as fault:
        raise ProctorError(Code.BUS_UNAVAILABLE, "the log cannot be read just now; try again in a moment") from fault

    async def parts() -> AsyncIterator[bytes]:
        if first is not None:
            yield _encode(first, format)
        async for frame in stream:
            yield _encode(frame, format)

    return PatientResponse(parts(), MEDIA[format], context.settings.slow_viewer)


def _encode(frame: LogFrame, format_: str) -> bytes:
    if format_ == "ndjson":
        return frame.text.encode() + b"\n"
    if isinstance(frame.shown, LogPiece):
        data = frame.shown.chunk.data
        return data if format_ == "raw" else data.decode("utf-8", "replace").encode()
    return b"" if frame.shown is None else _gap_line(frame.shown)


def _gap_line(gap: Gap) -> bytes:
    lines = f"from line {gap.first}" if gap.last is None else f"lines {gap.first} to {gap.last}"
    size = "" if gap.size is None else f", {gap.size} bytes"
    return f"[proctor: {lines} cannot be shown: {gap.reason.value}{size}]\n".encode()
