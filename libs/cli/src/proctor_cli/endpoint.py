"""Which api to use with which token: by options, else the environment, else the local system's own file."""

import json
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from proctor_cli.faults import Usage
from proctor_common.proxies import proxy_for

DEFAULT_URL = "http://127.0.0.1:8774"
ENDPOINT_FILE = "client.json"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The api's base URL without a slash at its end, a bearer token (None: none), and a private CA's file."""

    url: str
    token: str | None
    ca: str | None = None

    def tls(self) -> ssl.SSLContext | None:
        """How to trust an https address; None for http, as making a context costs 30 ms. Raises Usage."""
        if not self.url.startswith("https:"):
            return None
        try:
            return ssl.create_default_context(cafile=self.ca)
        except OSError as fault:
            raise Usage(f"cannot read the CA's certificate {self.ca}: {fault.strerror or fault}") from None

    def proxy(self) -> str | None:
        """The proxy for requests and websockets; None: none. Raises Usage."""
        try:
            return proxy_for(self.url)
        except ValueError as fault:
            raise Usage(str(fault)) from None


def default_data_dir() -> Path:
    """Where ``proctor up`` keeps its state by default: below XDG_DATA_HOME; /var/lib/proctor for root;
    ~/.local/share/proctor; if that cannot be written, a folder of our own in /tmp.
    """
    base = os.environ.get("XDG_DATA_HOME") or ""
    home = os.environ.get("HOME") or ""
    found = None
    if base.startswith("/"):
        found = Path(base) / "proctor"
    elif os.geteuid() == 0:
        found = Path("/var/lib/proctor")
    elif home.startswith("/"):
        found = Path(home) / ".local" / "share" / "proctor"
    if found is not None and _can_be_made(found):
        return found
    return Path("/tmp") / f"proctor-{os.geteuid()}"  # noqa: S108 - the launcher checks whose it is


def _can_be_made(folder: Path) -> bool:
    """Whether the nearest existing folder above it can be written."""
    for place in (folder, *folder.parents):
        if os.path.lexists(place):
            return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    return False


def read_endpoint_file(folder: Path) -> Endpoint | None:
    """The endpoint that the local system in ``folder`` has written; None if none runs or the file is not ours."""
    try:
        with (folder / ENDPOINT_FILE).open(encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_uid != os.geteuid():
                return None
            found = json.load(file)
        return Endpoint(str(found["url"]).rstrip("/"), found.get("token"), found.get("ca"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find_endpoint(url: str | None = None, token: str | None = None) -> Endpoint:
    """The endpoint to use.

    A token of the local system's file is used for that system only, never for a URL that the user gave. Raises Usage if
    the URL is malformed.
    """
    url = _checked_url(url or os.environ.get("PROCTOR_URL") or "")
    token = token or checked_token(os.environ.get("PROCTOR_TOKEN") or "", "PROCTOR_TOKEN") or None
    local = read_endpoint_file(default_data_dir())
    if not url:
        if local is not None:
            return Endpoint(local.url, token or local.token, local.ca)
        return Endpoint(DEFAULT_URL, token)
    if local is not None and local.url == url:
        return Endpoint(url, token or local.token, local.ca)
    return Endpoint(url, token)


def _checked_url(text: str) -> str:
    """The api's address without a slash at its end; empty if none is given. Raises Usage."""
    url = text.strip().rstrip("/")
    if not url:
        return ""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        sound = False
    else:
        if parts.username is not None or parts.password is not None:
            raise Usage("the api's address holds a user or a password: leave them out, and set PROCTOR_TOKEN")
    if not sound or parts.query or parts.fragment or not url.isprintable() or " " in url:
        raise Usage(f"not a URL: {url} (PROCTOR_URL looks like {DEFAULT_URL})")
    return url


def checked_token(text: str, where: str) -> str:
    """A token without surrounding white space. Raises Usage, which never shows the token."""
    token = text.strip()
    for place, character in enumerate(token, 1):
        if not "!" <= character <= "~":
            raise Usage(f"{where} holds no token: character {place} is none that a token has")
    return token
