"""The login page, and the session cookie that a browser gets for a token."""

from datetime import timedelta

from fastapi import Request, Response

from proctor_api.auth import COOKIE, SESSION_PREFIX
from proctor_api.routes.agents import count_try
from proctor_api.routes.guard import ViewResponse, anyone, context_of, router
from proctor_api.routes.models import SessionRequest, SessionView
from proctor_common.errors import Code, ProctorError
from proctor_common.ids import new_token, token_hash

routes = router("access")

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Proctor: log in</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" type="image/png" href="docs/assets/favicon-32x32.png">
<link rel="stylesheet" href="docs/assets/login.css"></head>
<body><main><h1>Proctor</h1>
<form id="login"><label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<button type="submit">Log in</button><p id="fault" role="alert"></p></form>
<p><a href="docs">API documentation</a></p></main>
<script src="docs/assets/login.js"></script></body></html>
"""
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@routes.get("/login", include_in_schema=False, openapi_extra=anyone())
async def login_page() -> Response:
    """The login page."""
    return Response(PAGE, media_type="text/html", headers={"Content-Security-Policy": PAGE_POLICY})


@routes.post("/v1/session", status_code=201, summary="Log in", openapi_extra=anyone())
async def open_session(request: Request, given: SessionRequest) -> ViewResponse[SessionView]:
    """Exchange a token for a session cookie (HttpOnly, SameSite=Strict). 401 for a wrong token, 409 if the api runs
    without authentication, 429 after too many tries from one address.
    """
    context = context_of(request)
    count_try(request)
    if "origin" in request.headers and not context.auth.is_own_origin(request):
        raise ProctorError(Code.FORBIDDEN, "log in from a page of this server (Origin)")
    if context.settings.no_auth:
        raise ProctorError(Code.CONFLICT, "the api runs without authentication: there is nothing to log in to")
    caller = await context.auth.by_secret("bearer", given.token)
    token = caller.actor.token
    if token is None:
        raise ProctorError(Code.UNAUTHENTICATED, "the token is not known, expired or revoked")
    secret = new_token(SESSION_PREFIX)
    expires = context.clock.now() + timedelta(hours=context.settings.session_hours)
    await context.tokens.open_session(secret, token, expires)
    await context.controllers.audit(caller.actor, "session.open", token)
    view = SessionView(name=caller.actor.name, role=caller.actor.role, groups=caller.actor.groups, expires_at=expires)
    response = ViewResponse(view.encoded(), 201)
    response.set_cookie(
        COOKIE,
        secret,
        max_age=int(context.settings.session_hours * 3600),
        path="/",
        secure=_is_secure(request),
        httponly=True,
        samesite="strict",
    )
    return response


@routes.delete("/v1/session", status_code=204, summary="Log out", openapi_extra=anyone())
async def close_session(request: Request) -> Response:
    """End the session and delete its cookie. No effect without a session."""
    context = context_of(request)
    secret = request.cookies.get(COOKIE)
    if secret:
        if not context.auth.is_own_origin(request):
            raise ProctorError(Code.FORBIDDEN, "log out from a page of this server (Origin)")
        await context.tokens.close_session(token_hash(secret))
        context.auth.forget_session(secret)
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, path="/", secure=_is_secure(request), httponly=True, samesite="strict")
    return response


def _is_secure(request: Request) -> bool:
    public = context_of(request).settings.public_url
    return request.scope["scheme"] == "https" or (public is not None and public.startswith("https:"))
