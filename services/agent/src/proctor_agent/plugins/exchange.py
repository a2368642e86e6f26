"""One HTTP request and its answer, for the methods of plugin ``http``.

Nothing is kept between requests: no connection, no cookie. Names are looked up here, so that a refused address is
refused under every name, and the connection goes to the address that was checked.
"""

import asyncio
import ipaddress
import json
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

import httpcore
import httpx
from pydantic import AfterValidator, BaseModel, Field, JsonValue

from proctor_agent.plugin import Context, Failed, MethodFault, Result, Secret
from proctor_agent.plugins.answers import MAX_BODY, read_body, shown
from proctor_common.outbound import CheckedNetwork, where_it_leads

MAX_SENT = 1024 * 1024
MAX_HEADERS = 50
MAX_REDIRECTS = 10
LOGGED = 1000
NAME = "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$"
"""A header's name or a method (RFC 9110: token)."""
VALUE = "^[\\t\\x20-\\x7e\\x80-\\xff]*$"

URL = "^[Hh][Tt][Tt][Pp][Ss]?://[^\\x00-\\x20\\x7f/?#@]+([/?#][^\\x00-\\x20\\x7f]*)?$"
"""Pattern for callers that check before the agent does; :func:`_url` says what is wrong."""
FRAMING = frozenset({"content-length", "transfer-encoding"})

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
HeaderName = Annotated[str, Field(pattern=NAME)]
HEADER_VALUE = Field(max_length=8192, pattern=VALUE, description="printable characters of Latin-1, no line break")
Status = Annotated[int, Field(ge=100, le=599)]


def _url(text: str) -> str:
    if any(ord(character) <= 32 or ord(character) == 127 for character in text):
        raise ValueError("must hold no blank and no control character: write them as %20 and the like")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme.lower() not in {"http", "https"} or not parts.hostname or port == 0:
        raise ValueError("must be http://host… or https://host…")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must hold no user and no password: give them by secret_headers or token")
    return text


Values = TypeVar("Values", bound=Mapping[str, str])


def _unframed(headers: Values) -> Values:
    if wrong := FRAMING.intersection(name.lower() for name in headers):
        raise ValueError(f"must not hold {min(wrong)}: it is worked out from the body")
    return headers


class Request(BaseModel):
    """Parameters of a request."""

    url: Annotated[
        str,
        Field(
            min_length=1,
            max_length=8192,
            description="http://… or https://…, without user and password",
            json_schema_extra={"pattern": URL},
        ),
        AfterValidator(_url),
    ]
    headers: Annotated[
        dict[HeaderName, Annotated[str, HEADER_VALUE]],
        Field(max_length=MAX_HEADERS),
        AfterValidator(_unframed),
    ] = {}
    secret_headers: Annotated[
        dict[HeaderName, Annotated[Secret, HEADER_VALUE]],
        Field(max_length=MAX_HEADERS, description="headers whose values nobody may see"),
        AfterValidator(_unframed),
    ] = {}
    token: Annotated[Secret, Field(max_length=8192, pattern=VALUE)] | None = Field(
        default=None, description="sent as Authorization: Bearer …"
    )
    body: JsonValue = Field(default=None, description="a text as it is, anything else as JSON; absent: no body")
    secret_body: Annotated[Secret, Field(max_length=MAX_SENT)] | None = Field(
        default=None, description="a body, as text, that nobody may see; instead of body"
    )
    expected: Status | Annotated[list[Status], Field(min_length=1, max_length=100)] | None = Field(
        default=None, description="the status that passes, or a list of them; default: 200 to 299"
    )
    timeout: Annotated[float, Field(gt=0, le=3600, description="seconds for all of it, redirects included")] = 30.0
    redirects: Literal["same_host", "any", "none"] = Field(
        default="same_host", description="which redirects are followed; same_host: those to the URL's own host"
    )
    ca: Annotated[str, Field(max_length=MAX_BODY)] | None = Field(
        default=None, description="PEM text: trust servers of these CAs only; default: those of the agent's host"
    )


class AnyRequest(Request):
    """Parameters of ``request``."""

    method: Annotated[str, Field(pattern=NAME, description="GET, OPTIONS, …")]


def read_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Addresses and networks as text. Raises ValueError."""
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


async def send(
    context: Context, verb: str, wanted: Request, trust: ssl.SSLContext, refused: Sequence[Network]
) -> Result:
    """Send the request and judge the answer. Raises Failed for another status than expected; MethodFault: ``timeout``,
    ``connect_failed``, ``tls_failed``, ``address_refused``, ``redirect_to_other_host``, ``too_many_redirects``,
    ``http_failed``, ``stopping``, ``bad_request``.
    """
    started = time.monotonic()
    exchange = asyncio.ensure_future(_exchange(verb, wanted, trust, refused))
    stopped = asyncio.ensure_future(context.stopped())
    try:
        await asyncio.wait({exchange, stopped}, timeout=wanted.timeout, return_when=asyncio.FIRST_COMPLETED)
        if not exchange.done():
            if stopped.done():
                raise MethodFault("stopping", "the attempt is being stopped: the request was given up")
            raise MethodFault("timeout", f"no whole answer within {wanted.timeout:g} s", timeout_s=wanted.timeout)
        answer, raw, hops = exchange.result()
    finally:
        for task in (exchange, stopped):
            task.cancel()
        await asyncio.gather(exchange, stopped, return_exceptions=True)
    found = shown(answer, raw, time.monotonic() - started)
    said = f"{answer.request.method} {found.url} -> {found.status} {found.reason}".rstrip()
    size = f"{len(raw)} bytes" if len(raw) <= MAX_BODY else f"more than {MAX_BODY} bytes"
    redirects = f", after {hops} redirect{'s' if hops > 1 else ''}" if hops else ""
    await context.log(f"{said}, {size} in {found.duration_s:.3f} s{redirects}")
    output = found.model_dump(by_alias=True)
    if found.status in _expected(wanted):
        return Result(output)
    if found.body:
        await context.log(found.body[:LOGGED])
    raise Failed(f"status {found.status}, expected {_expectation(wanted)}", output=output)


def _expected(wanted: Request) -> Sequence[int]:
    if wanted.expected is None:
        return range(200, 300)
    return wanted.expected if isinstance(wanted.expected, list) else [wanted.expected]


def _expectation(wanted: Request) -> str:
    return "200 to 299" if wanted.expected is None else " or ".join(str(code) for code in _expected(wanted))


async def _exchange(
    verb: str, wanted: Request, trust: ssl.SSLContext, refused: Sequence[Network]
) -> tuple[httpx.Response, bytes, int]:
    """The last answer, at most MAX_BODY + 1 bytes of its body, and how many redirects led there."""
    transport = httpx.AsyncHTTPTransport(verify=trust, trust_env=False, retries=0)
    # httpx has no option for name look-up; its transport is a thin layer over this pool.
    transport._pool = httpcore.AsyncConnectionPool(
        ssl_context=trust, max_connections=1, network_backend=CheckedNetwork(partial(_unrefused, refused))
    )
    # The step's own timeout is the only one: a server may take its time within it.
    async with httpx.AsyncClient(transport=transport, timeout=None, trust_env=False) as client:  # noqa: S113
        try:
            request = client.build_request(verb, wanted.url, headers=_headers(wanted), content=_content(wanted))
            return await _follow(client, request, wanted)
        except httpx.HTTPError as fault:
            raise _fault_of(fault, wanted.url) from None
        except (httpx.InvalidURL, UnicodeError) as fault:
            raise MethodFault("bad_request", f"this cannot be sent: {fault}") from None


async def _follow(
    client: httpx.AsyncClient, request: httpx.Request, wanted: Request
) -> tuple[httpx.Response, bytes, int]:
    for hops in range(MAX_REDIRECTS + 1):
        answer = await client.send(request, stream=True, follow_redirects=False)
        try:
            following = answer.next_request
            if following is None or wanted.redirects == "none" or answer.status_code in _expected(wanted):
                return answer, await read_body(answer), hops
        finally:
            await answer.aclose()
        if wanted.redirects == "same_host" and following.url.host != request.url.host:
            raise MethodFault(
                "redirect_to_other_host",
                f"{request.url.host} redirects to {following.url.host}: set redirects to any to follow it there",
                status=answer.status_code,
                host=following.url.host,
            )
        # A redirect must not set credentials, nor write a password into our log.
        following.url = following.url.copy_with(userinfo=b"")
        if _origin(following.url) != _origin(httpx.URL(wanted.url)):
            for name in (*wanted.secret_headers, "authorization", "cookie"):
                following.headers.pop(name, None)
            if wanted.secret_body is not None and following.method == request.method:
                raise MethodFault(
                    "redirect_to_other_host", "a hidden body is not sent to another origin", host=following.url.host
                )
        request = following
    raise MethodFault("too_many_redirects", f"more than {MAX_REDIRECTS} redirects")


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _headers(wanted: Request) -> list[tuple[bytes, bytes]]:
    headers: dict[str, str] = {"user-agent": "proctor", "accept": "*/*", "accept-encoding": "identity"}
    if isinstance(wanted.body, str):
        headers["content-type"] = "text/plain; charset=utf-8"
    elif wanted.body is not None:
        headers["content-type"] = "application/json"
    given = {**wanted.headers, **wanted.secret_headers}
    headers.update({name.lower(): value for name, value in given.items()})
    if wanted.token is not None:
        headers["authorization"] = f"Bearer {wanted.token}"
    return [(name.encode("ascii"), value.strip().encode("latin-1")) for name, value in headers.items()]


def _content(wanted: Request) -> bytes | None:
    """The body's bytes. Raises MethodFault."""
    if wanted.secret_body is not None:
        if wanted.body is not None:
            raise MethodFault("bad_request", "body and secret_body exclude each other")
        text = wanted.secret_body
    elif wanted.body is None:
        return None
    else:
        text = wanted.body if isinstance(wanted.body, str) else json.dumps(wanted.body, ensure_ascii=False)
    content = text.encode("utf-8", "replace")
    if len(content) > MAX_SENT:
        raise MethodFault("bad_request", f"the body is over the limit of {MAX_SENT} bytes")
    return content


def _fault_of(fault: httpx.HTTPError, url: str) -> MethodFault:
    text = str(fault) or type(fault).__name__
    if isinstance(fault, httpx.ConnectError):
        # Only the text of a TLS fault comes through httpx.
        kind = "tls_failed" if "certificate" in text.lower() or "SSL" in text else "connect_failed"
        return MethodFault(kind, f"cannot connect to {_peer(fault, url)}: {text}")
    return MethodFault("http_failed", f"the exchange broke off: {text}")


def _peer(fault: httpx.HTTPError, url: str) -> str:
    """The host that was asked: after a redirect not the one of ``url``. Without the path, which may be a secret."""
    try:
        asked = fault.request.url
    except RuntimeError:
        asked = httpx.URL(url)
    return f"{asked.scheme}://{asked.netloc.decode('ascii', 'replace')}"


def _unrefused(refused: Sequence[Network], host: str, addresses: list[str]) -> Iterator[str]:
    """The addresses, each checked before it is tried. Raises MethodFault."""
    for text in addresses:
        plain = where_it_leads(text)
        if any(plain.version == network.version and plain in network for network in refused):
            message = f"{host} is at {text}, which this agent's settings refuse (plugin_settings.http.refuse)"
            raise MethodFault("address_refused", message, address=text)
        yield text
