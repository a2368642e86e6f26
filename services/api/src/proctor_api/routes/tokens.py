"""Tokens: create, list and revoke them."""

from fastapi import Request

from proctor_api.auth import TOKEN_PREFIX
from proctor_api.routes.guard import ViewResponse, caller_of, context_of, needs, router
from proctor_api.routes.models import After, Limit, NewTokenView, TokenPage, TokenRequest, TokenView
from proctor_api.store.tokens import Token
from proctor_common.errors import Code, ProctorError, invalid, not_found
from proctor_common.ids import is_id, new_token
from proctor_common.messages.calls.agents import GET_GROUP, GroupRef
from proctor_common.states import Role

routes = router("access")


def view_of(token: Token) -> TokenView:
    """The view of a token, without its secret."""
    return TokenView(
        id=token.id,
        name=token.name,
        role=token.role,
        groups=None if token.groups is None else list(token.groups),
        created_at=token.created_at,
        created_by=token.created_by,
        expires_at=token.expires_at,
        last_use=token.last_use,
    )


@routes.post("/v1/tokens", status_code=201, summary="Create a token", openapi_extra=needs(Role.ADMIN))
async def add_token(request: Request, wanted: TokenRequest) -> ViewResponse[NewTokenView]:
    """Create a token; it is shown only in this answer. 403 if a token that is bound to groups names other groups than
    its own, 404 for an unknown group.
    """
    context, caller = context_of(request), caller_of(request)
    if wanted.expires is not None and wanted.expires.tzinfo is None:
        raise invalid("expires: must have a time zone", path="expires", code="no_timezone")
    if wanted.expires is not None and wanted.expires <= context.clock.now():
        raise invalid("expires: is in the past", path="expires", code="past")
    groups = wanted.groups
    mine = caller.actor.groups
    if mine is not None:
        if groups is not None and not set(groups) <= set(mine):
            raise ProctorError(
                Code.FORBIDDEN, "a token that is bound to groups can create tokens for these groups only"
            )
        groups = groups or mine
    for name in sorted(set(wanted.groups or ())):
        # A token for a mistyped group would gain rights when somebody creates a group of that name.
        await context.controllers.ask_encoded(GET_GROUP, caller.actor, GroupRef(name=name))
    secret = new_token(TOKEN_PREFIX)
    made = await context.tokens.add(
        name=wanted.name,
        role=wanted.role,
        groups=sorted(set(groups)) if groups is not None else None,
        secret=secret,
        created_by=caller.actor.name,
        expires_at=wanted.expires,
    )
    await context.controllers.audit(
        caller.actor, "token.create", made.id, name=made.name, role=made.role.value, groups=list(made.groups or [])
    )
    view = NewTokenView(**view_of(made).model_dump(), token=secret)
    return ViewResponse(view.encoded(), 201, {"Location": f"/v1/tokens/{made.id}"})


@routes.get("/v1/tokens", summary="List tokens", openapi_extra=needs(Role.ADMIN))
async def list_tokens(request: Request, limit: Limit = 100, cursor: After = None) -> ViewResponse[TokenPage]:
    """Tokens, oldest first, without their secrets."""
    context, caller = context_of(request), caller_of(request)
    if cursor is not None and not is_id(cursor):
        raise invalid("cursor: not a cursor", path="query.cursor", code="cursor")
    found = await context.tokens.list(limit + 1, cursor, caller.actor.groups)
    page = found[:limit]
    shown = [view_of(token) for token in page]
    following = page[-1].id if len(found) > limit else None
    return ViewResponse(TokenPage(items=shown, next=following).encoded())


@routes.get("/v1/tokens/{token}", summary="Show a token", openapi_extra=needs(Role.ADMIN))
async def get_token(request: Request, token: str) -> ViewResponse[TokenView]:
    """The token with this id, without its secret."""
    return ViewResponse(view_of(await _visible(request, token)).encoded())


@routes.delete("/v1/tokens/{token}", summary="Revoke a token", openapi_extra=needs(Role.ADMIN))
async def delete_token(request: Request, token: str) -> ViewResponse[TokenView]:
    """Revoke the token and its sessions at once; its open websockets are closed within a minute."""
    context, caller = context_of(request), caller_of(request)
    known = await _visible(request, token)
    await context.tokens.delete(known.id)
    context.auth.forget(known.id)
    await context.controllers.audit(caller.actor, "token.revoke", known.id, name=known.name)
    return ViewResponse(view_of(known).encoded())


async def _visible(request: Request, token: str) -> Token:
    """The token, if the caller may see it. Raises 404."""
    found = await context_of(request).tokens.get(token)
    if found is None or not _sees(caller_of(request).actor.groups, found):
        raise not_found("token", token)
    return found


def _sees(groups: list[str] | None, token: Token) -> bool:
    """An admin bound to groups sees only tokens that are bound to some of the same groups, and to no others."""
    return groups is None or (token.groups is not None and set(token.groups) <= set(groups))
