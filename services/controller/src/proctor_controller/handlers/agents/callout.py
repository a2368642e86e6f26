"""The auth callout: a server asks whether a client may connect, and as which user. No SQL."""

import random

import structlog
from prometheus_client import Counter

from proctor_common.bus import Message
from proctor_common.errors import ProctorError
from proctor_common.pg import transaction
from proctor_controller.context import ProcessContext
from proctor_controller.db.agents.registry import agent_of_key
from proctor_controller.identity.callout import AuthRequest, keep_out, let_in, read_request
from proctor_controller.identity.nkey import BadClaims, Issuer

log = structlog.get_logger(__name__)

JITTER = 0.25
"""Random part of a user's lifetime, so that agents do not reconnect all at once."""


class Callout:
    """Admits clients that prove to have the key of an agent that is not removed."""

    def __init__(self, context: ProcessContext, issuer: Issuer) -> None:
        self._context = context
        self._issuer = issuer
        self.refused = Counter(
            "proctor_callout_refused", "Clients that were not let in", ["reason"], registry=context.registry
        )
        self.accepted = Counter("proctor_callout_accepted", "Agents that were let in", registry=context.registry)

    async def answer(self, message: Message) -> bytes | None:
        """The answer to the server; None if the request is not one of a server."""
        try:
            request = read_request(message.data)
        except BadClaims as fault:
            self.refused.labels("bad_request").inc()
            log.error("callout_not_from_a_server", error=str(fault))
            return None
        now = int(self._context.clock.now().timestamp())
        if not request.signed:
            return self._refuse(request, "no_proof", now)
        try:
            async with transaction(self._context.database) as connection:
                agent = await agent_of_key(connection, request.public_key)
        except ProctorError:
            return self._refuse(request, "database_unavailable", now)
        if agent is None:
            return self._refuse(request, "unknown_key", now)
        settings = self._context.settings
        lifetime = settings.agent_user_lifetime * (1 - JITTER * random.random())  # noqa: S311 - spreads, guards nothing
        self.accepted.inc()
        log.info("agent_let_in", agent=agent, client=request.client_name, address=request.client_host)
        return let_in(
            self._issuer, request, agent, account=settings.account_name, now=now, expires=now + max(1, int(lifetime))
        )

    def _refuse(self, request: AuthRequest, reason: str, now: int) -> bytes:
        self.refused.labels(reason).inc()
        log.warning(
            "client_refused",
            reason=reason,
            public_key=request.public_key[:60],
            client=request.client_name,
            address=request.client_host,
        )
        return keep_out(self._issuer, request, reason, now=now)
