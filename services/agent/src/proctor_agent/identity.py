"""Who this agent is: its own key, made here and never sent, and what the api said when it joined."""

import asyncio
import json
import os
import ssl
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import nkeys

from proctor_common.proxies import proxy_for
from proctor_common.service import StartError

KEY_FILE = "agent.nk"
IDENTITY_FILE = "identity.json"
CA_FILE = "nats-ca.crt"
PATIENCE_S = 120.0
"""How long a join that the api puts off (429, 503) is repeated."""


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """What the join gave: agent id, host name, URLs of the bus and the CA to trust there (PEM; None: none)."""

    agent: str
    host: str
    nats_urls: list[str]
    nats_ca: str | None


def make_folder(path: Path) -> Path:
    """A private folder (0700). Raises StartError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as fault:
        raise StartError(f"data_dir: cannot use {path}: {fault.strerror}") from None
    return path


def own_seed(folder: Path) -> str:
    """The seed of this agent's key, made at the first call (0600). Raises StartError."""
    path = folder / KEY_FILE
    try:
        if not path.exists():
            _write(path, nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER).decode() + "\n")
        return path.read_text().strip()
    except OSError as fault:
        raise StartError(f"cannot keep the agent's key in {path}: {fault.strerror}") from None


def public_key(seed: str) -> str:
    """The public key (``U…``) of a seed."""
    found: bytes = nkeys.from_seed(bytearray(seed.encode())).public_key
    return found.decode()


def load_identity(folder: Path) -> AgentIdentity | None:
    """What an earlier join gave; None if there was none. Raises StartError."""
    path = folder / IDENTITY_FILE
    try:
        return AgentIdentity(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as fault:
        raise StartError(f"cannot read {path}: {fault}; join again after removing it") from None


async def join(
    folder: Path, url: str, token: str, ca_file: Path | None, put_off: Callable[[str, float], None]
) -> AgentIdentity:
    """Join with a one-time token and store the answer. A repeat uses the same key. If the api names a time to come
    again, wait for it, PATIENCE_S in all, and call ``put_off`` with the reason and the seconds. Raises StartError.
    """
    key = public_key(own_seed(folder))
    verify = httpx.create_ssl_context()
    if ca_file is not None:
        try:
            verify = ssl.create_default_context(cafile=str(ca_file))
        except OSError as fault:
            raise StartError(f"cannot read the CA's certificate {ca_file}: {fault.strerror or fault}") from None
    try:
        # Proxies of the environment are used, but never for loopback.
        async with httpx.AsyncClient(verify=verify, timeout=30, proxy=proxy_for(url), trust_env=False) as http:
            body = {"token": token.strip(), "public_key": key}
            answer = await _ask(http, f"{url.rstrip('/')}/v1/agents/join", body, put_off)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as fault:
        raise StartError(f"cannot join at {url}: {str(fault) or type(fault).__name__}") from None
    if answer.status_code != 200:
        raise StartError(f"cannot join at {url}: {_refusal(answer)}")
    try:
        found = answer.json()
        identity = AgentIdentity(found["agent"], found["host"], found["nats"]["urls"], found["nats"].get("ca"))
    except (ValueError, KeyError, TypeError):
        raise StartError(f"cannot join at {url}: what answers there is no Proctor api") from None
    try:
        _write(folder / IDENTITY_FILE, json.dumps(asdict(identity), indent=1) + "\n")
    except OSError as fault:
        raise StartError(f"cannot keep the identity in {folder}: {fault.strerror}") from None
    return identity


async def _ask(
    http: httpx.AsyncClient, url: str, body: dict[str, str], put_off: Callable[[str, float], None]
) -> httpx.Response:
    left = PATIENCE_S
    while True:
        answer = await http.post(url, json=body)
        asked = answer.headers.get("retry-after", "")
        if answer.status_code not in (429, 503) or not asked.isdecimal() or float(asked) > left:
            return answer
        pause = max(1.0, float(asked))
        put_off(_refusal(answer), pause)
        left -= pause
        await asyncio.sleep(pause)


def ca_path(folder: Path, identity: AgentIdentity, given: Path | None) -> str | None:
    """The CA file for the bus: the settings' own, else the one that the join gave, else None."""
    if given is not None:
        return str(given)
    if identity.nats_ca is None:
        return None
    path = folder / CA_FILE
    _write(path, identity.nats_ca)
    return str(path)


def _refusal(answer: httpx.Response) -> str:
    try:
        problem = answer.json()
        return str(problem.get("detail") or problem.get("title") or problem)
    except (ValueError, AttributeError):
        return f"HTTP {answer.status_code}"


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
