"""The built-in plugin ``http``: requests to HTTP servers, from the agent's own host."""

import ssl
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BaseModel, Field

from proctor_agent.plugin import Context, MethodFault, Plugin, Result, method
from proctor_agent.plugins import exchange
from proctor_agent.plugins.exchange import AnyRequest, Request

ABOUT = "from the agent's own host; passes if the status is one of expected (default: 200 to 299)"


class Settings(BaseModel):
    """The agent's settings for this plugin."""

    ca_file: Path | None = None
    """PEM file of the CAs that servers' certificates are checked against, instead of the system's."""
    refuse: Annotated[list[str], Field(max_length=100)] = ["169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128"]
    """Networks and addresses that no request may go to, under any name. The default is where clouds serve the machine's
    own credentials."""


class Http(Plugin):
    """Requests to HTTP servers."""

    description = "requests to HTTP servers, from the agent's own host"
    version = "1"
    Settings: ClassVar[type[BaseModel] | None] = Settings

    def __init__(self, settings: BaseModel | None = None) -> None:
        super().__init__(settings)
        given: Settings = self.settings
        self._refused = exchange.read_networks(given.refuse)
        self._usual: ssl.SSLContext | None = None

    @method(description=f"GET a URL, {ABOUT}")
    async def get(self, context: Context, parameters: Request) -> Result:
        return await self._send(context, "GET", parameters)

    @method(description=f"HEAD a URL, {ABOUT}")
    async def head(self, context: Context, parameters: Request) -> Result:
        return await self._send(context, "HEAD", parameters)

    @method(description=f"POST a body (a text, or anything else as JSON) to a URL, {ABOUT}")
    async def post(self, context: Context, parameters: Request) -> Result:
        return await self._send(context, "POST", parameters)

    @method(description=f"PUT a body (a text, or anything else as JSON) to a URL, {ABOUT}")
    async def put(self, context: Context, parameters: Request) -> Result:
        return await self._send(context, "PUT", parameters)

    @method(description=f"PATCH what is at a URL, {ABOUT}")
    async def patch(self, context: Context, parameters: Request) -> Result:
        return await self._send(context, "PATCH", parameters)

    @method(description=f"DELETE what is at a URL, {ABOUT}")
    async def delete(self, context: Context, parameters: Request) -> Result:
        return await self._send(context, "DELETE", parameters)

    @method(description=f"send a request of any method, {ABOUT}")
    async def request(self, context: Context, parameters: AnyRequest) -> Result:
        return await self._send(context, parameters.method, parameters)

    async def _send(self, context: Context, verb: str, parameters: Request) -> Result:
        trust = self._trust() if parameters.ca is None else _trust_only(parameters.ca)
        return await exchange.send(context, verb, parameters, trust, self._refused)

    def _trust(self) -> ssl.SSLContext:
        """Made once: reading the system's certificates takes 50 ms. Raises MethodFault."""
        if self._usual is None:
            file: Path | None = self.settings.ca_file
            try:
                self._usual = ssl.create_default_context(cafile=str(file) if file is not None else None)
            except (OSError, ssl.SSLError) as fault:
                raise MethodFault("bad_ca", f"the agent's setting ca_file cannot be used: {fault}") from None
        return self._usual


def _trust_only(pem: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cadata=pem)
    except (ssl.SSLError, ValueError):
        raise MethodFault("bad_ca", "ca: is not a certificate in PEM form") from None
