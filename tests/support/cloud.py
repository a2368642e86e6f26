"""A small OpenStack: the parts of Keystone v3 and Cinder v3 that the pool speaks to, over real HTTP, with faults.

It answers as Keystone 30 and Cinder 29 do: 202 and ``creating`` for a create, 400 (never 409) where the state forbids
something, 413 with ``Retry-After: 0`` at the quota, names that are not unique, renames without compare-and-set,
filters that are silently ignored below microversion 3.31, a marker that is gone -> 404, times without a zone.
"""

import ast
import asyncio
import json
import random
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from support.http import Asked, HttpServer, Reply

TYPES = ("igw", "bgw", "dhcp", "cast")
DELETABLE = {"available", "error", "error_restoring", "error_extending"}
FILTERS = {"metadata", "limit", "marker", "sort", "all_tenants", "status", "name", "with_count", "offset"}
PROJECT = "8a4f3c0d9b1e4a55a7d1f2c3b4e5d6f7"
BEFORE = {"401", "413", "429", "503", "reset", "html", "no route"}
"""Faults that come before anything is done; the others come after: lost, half, 500, slow, garbage, hang."""

Chance = Callable[[str], str | None]


@dataclass
class CloudVolume:
    """A volume; ``turns``: the states it will take by itself, with the moments; the state ``gone`` is its end."""

    id: str
    name: str
    size: int
    type: str
    metadata: dict[str, str]
    status: str = "creating"
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    made_at: float = field(default_factory=time.monotonic)
    gone_at: float | None = None
    turns: list[tuple[float, str]] = field(default_factory=list)
    message: str = ""

    def settle(self, now: float) -> None:
        while self.turns and self.turns[0][0] <= now:
            self.gone_at, self.status = self.turns.pop(0)

    def view(self, *, fresh: bool = False) -> dict[str, Any]:
        made = self.created_at.replace(tzinfo=None)
        return {
            "id": self.id,
            "name": self.name,
            "size": self.size,
            "volume_type": self.type,
            "metadata": dict(self.metadata),
            "status": self.status,
            "created_at": (made if fresh else made.replace(microsecond=0)).isoformat(timespec="auto"),
            "updated_at": None,
            "attachments": [],
        }


class Cloud:
    """One cloud with one project and two users: ``member`` (password ``member``) and ``admin``.

    Everything public may be changed while it runs.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, seed: int = 0) -> None:
        self._lock = threading.RLock()
        self._http = HttpServer(self._answer, tls)
        self._random = random.Random(seed)
        self._tokens: dict[str, tuple[str, float]] = {}
        self._once: dict[str, list[tuple[str, str]]] = {}
        self._frozen = False
        self._seen_by_list: dict[str, CloudVolume] = {}
        self.volumes: dict[str, CloudVolume] = {}
        self.ended: list[CloudVolume] = []
        self.created = 0
        self.made_for: Counter[str] = Counter()
        """How many volumes were asked for under the same marks."""
        self.calls: Counter[str] = Counter()
        self.logins = 0
        self.refused_tokens = 0
        self.chance: Chance | None = None
        """What goes wrong with a call of this operation, asked at each one."""
        self.passwords = {"member": "member", "admin": "admin"}
        self.credential = ("4b1f00d2c0ffee", "app-secret")
        self.token_ttl = 3600.0
        self.catalog_types: tuple[str, ...] = ("block-storage", "volumev3")
        self.regions: tuple[str, ...] = ("RegionOne",)
        self.with_project = True
        self.public_url: str | None = None
        self.highest = (3, 71)
        self.create_delay = 0.0
        self.delete_delay = 0.0
        self.slowness = 1.0
        self.list_lag = 0.0
        self.most_at_once = 1000
        self.quota_volumes = 10_000
        self.quota_gigabytes = 100_000

    def start(self) -> "Cloud":
        self._http.listen()
        return self

    def close(self) -> None:
        self._http.close()

    # -- what a test says ----------------------------------------------------------------------------------------

    @property
    def auth_url(self) -> str:
        return f"{self._http.url}/identity/v3"

    @property
    def connections(self) -> int:
        return self._http.connections

    def inject(self, operation: str, fault: str, times: int = 1, match: str = "") -> None:
        """The next calls of the operation go wrong so; ``match``: those only whose body holds it."""
        with self._lock:
            self._once.setdefault(operation, []).extend([(fault, match)] * times)

    def down(self) -> None:
        """Connections are refused from now on."""
        self._http.refuse()

    def up(self) -> None:
        self._http.listen()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Requests are taken and do not move, until they all go on (a process that is stopped)."""
        self._frozen = True
        try:
            yield
        finally:
            self._frozen = False

    def expire_tokens(self) -> None:
        with self._lock:
            self._tokens.clear()

    def add(self, name: str, *, status: str = "available", type: str = "igw", **metadata: str) -> CloudVolume:
        """A volume that somebody else has made."""
        with self._lock:
            made = CloudVolume(str(uuid4()), name, 10, type, metadata, status)
            self.volumes[made.id] = made
            return made

    def all(self, *states: str) -> list[CloudVolume]:
        """The volumes there are now, in these states or in any."""
        with self._lock:
            self._settle()
            return [volume for volume in self.volumes.values() if not states or volume.status in states]

    def environment(self, user: str = "member") -> dict[str, str]:
        """``OS_*``, as an openrc file sets them."""
        return {
            "OS_AUTH_URL": self.auth_url,
            "OS_USERNAME": user,
            "OS_PASSWORD": self.passwords[user],
            "OS_PROJECT_NAME": "lab",
            "OS_USER_DOMAIN_NAME": "Default",
            "OS_PROJECT_DOMAIN_NAME": "Default",
            "OS_REGION_NAME": self.regions[0],
            "OS_INTERFACE": "public",
            "OS_IDENTITY_API_VERSION": "3",
        }

    # -- requests ------------------------------------------------------------------------------------------------

    async def _answer(self, asked: Asked) -> Reply:
        operation = _operation(asked)
        while self._frozen:  # noqa: ASYNC110  # it is thawed from another thread
            await asyncio.sleep(0.005)
        with self._lock:
            self.calls[operation] += 1
            fault = self._fault(operation, asked)
            if fault in BEFORE:
                return self._refusal(fault)
            self._settle()
            reply = self._perform(operation, asked, fault)
        if fault in {"lost", "hang"}:
            await asyncio.sleep(self.slowness if fault == "hang" else 0)
            return Reply(cut=True)
        if fault == "slow":
            await asyncio.sleep(self.slowness)
        if fault == "half":
            return Reply(reply.status, reply.body, reply.headers, half=True)
        if fault == "500":
            return _error(500, "computeFault", "The server has either erred or is incapable of performing the request.")
        if fault == "garbage":
            return Reply(reply.status, "<html><body>It works!</body></html>")
        return reply

    def _fault(self, operation: str, asked: Asked) -> str | None:
        waiting = self._once.get(operation, [])
        for index, (fault, match) in enumerate(waiting):
            if match.encode() in asked.body:
                del waiting[index]
                return fault
        return self.chance(operation) if self.chance is not None else None

    def _refusal(self, fault: str) -> Reply:
        if fault == "401":
            return _unauthorized()
        if fault == "413":
            return _over_quota(
                "VolumeLimitExceeded: Maximum number of volumes allowed (10) exceeded for quota 'volumes'."
            )
        if fault == "429":
            return Reply(429, {"overLimit": {"code": 429, "message": "Too many requests"}}, {"Retry-After": "1"})
        if fault == "503":
            return Reply(503, "<html><head><title>503</title></head><body><h1>Service Unavailable</h1></body></html>")
        if fault == "no route":
            return Reply(404, "<html><h1>404 Not Found</h1></html>")
        return Reply(cut=True) if fault == "reset" else Reply(502, "<html><h1>502 Bad Gateway</h1></html>")

    def _perform(self, operation: str, asked: Asked, fault: str | None) -> Reply:
        if operation == "versions":
            return self._versions(asked)
        if operation == "identity":
            about = {"id": "v3.14", "status": "stable", "links": [{"rel": "self", "href": self.auth_url}]}
            return Reply(200, {"version": about})
        if operation == "token":
            return self._issue(asked)
        held = self._tokens.get(asked.headers.get("x-auth-token", ""))
        if held is None or held[1] < time.monotonic():
            self.refused_tokens += 1
            return _unauthorized()
        version = _version_asked(asked)
        if version > self.highest:
            return _error(406, "computeFault", f"Version {version} is not supported by the API.")
        if not asked.path.startswith(("/volume/v3/volumes", "/volume/v3/limits", f"/volume/v3/{PROJECT}/")):
            return _error(400, "badRequest", "Malformed request url")
        headers = {"x-openstack-request-id": asked.headers.get("x-openstack-request-id", f"req-{uuid4()}")}
        reply = self._storage(operation, asked, fault, version, is_admin=held[0] == "admin")
        return Reply(reply.status, reply.body, {**headers, **reply.headers})

    def _storage(
        self, operation: str, asked: Asked, fault: str | None, version: tuple[int, int], *, is_admin: bool
    ) -> Reply:
        if operation == "create":
            return self._create(asked, fault)
        if operation == "list":
            return self._list(asked, version)
        if operation == "limits":
            return self._limits()
        if operation == "messages":
            found = self.volumes.get(asked.query.get("resource_uuid", ""))
            return Reply(200, {"messages": [{"user_message": found.message}] if found and found.message else []})
        identifier = asked.path.split("/volumes/", 1)[-1].split("/")[0]
        volume = self.volumes.get(identifier)
        if volume is None:
            return _error(404, "itemNotFound", f"Volume {identifier} could not be found.")
        if operation == "delete":
            return self._delete(volume, fault)
        if operation == "rename":
            return self._rename(volume, asked)
        if operation == "action":
            return self._action(volume, asked, is_admin)
        return Reply(200, {"volume": volume.view()})

    # -- identity ------------------------------------------------------------------------------------------------

    def _issue(self, asked: Asked) -> Reply:
        identity = asked.json()["auth"]["identity"]
        if identity["methods"] == ["application_credential"]:
            given = identity["application_credential"]
            user = "member" if (given.get("id"), given.get("secret")) == self.credential else None
        else:
            given = identity["password"]["user"]
            user = given.get("name") if self.passwords.get(str(given.get("name"))) == given.get("password") else None
            if asked.json()["auth"].get("scope", {}).get("project", {}).get("name") != "lab":
                user = None
        if user is None:
            return _unauthorized()
        self.logins += 1
        token = uuid4().hex
        self._tokens[token] = (user, time.monotonic() + self.token_ttl)
        now = datetime.now(UTC)
        body = {
            "methods": identity["methods"],
            "issued_at": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "expires_at": (now + timedelta(seconds=self.token_ttl)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "project": {"id": PROJECT, "name": "lab", "domain": {"id": "default", "name": "Default"}},
            "user": {"id": uuid4().hex, "name": user, "domain": {"id": "default", "name": "Default"}},
            "roles": [{"id": uuid4().hex, "name": user}],
            "catalog": [self._service(kind) for kind in self.catalog_types],
        }
        return Reply(201, {"token": body}, {"X-Subject-Token": token})

    def _service(self, kind: str) -> dict[str, Any]:
        path = "/volume/v3/" + PROJECT if self.with_project else "/volume/v3"
        unreachable = "http://127.0.0.1:1/volume/v3/" + PROJECT
        endpoints = []
        for region in self.regions:
            for interface in ("public", "internal", "admin"):
                here = interface == "public" and region == self.regions[0]
                url = (self.public_url or self._http.url) + path if here else unreachable
                endpoints.append(
                    {"id": uuid4().hex, "interface": interface, "region_id": region, "region": region, "url": url}
                )
        return {"id": uuid4().hex, "type": kind, "name": "cinder", "endpoints": endpoints}

    def _versions(self, asked: Asked) -> Reply:
        links = [{"rel": "self", "href": f"{self._http.url}/volume/v3/"}]
        highest = f"{self.highest[0]}.{self.highest[1]}"
        v3 = {"id": "v3.0", "status": "CURRENT", "version": highest, "min_version": "3.0", "links": links}
        return Reply(300, {"versions": [v3]})

    # -- block storage -------------------------------------------------------------------------------------------

    def _create(self, asked: Asked, fault: str | None) -> Reply:
        wished = asked.json()["volume"]
        if wished.get("volume_type") not in TYPES:
            return _error(404, "itemNotFound", f"Volume type {wished.get('volume_type')} could not be found.")
        if not isinstance(wished.get("size"), int) or wished["size"] < 1 or len(wished.get("name") or "") > 255:
            return _error(400, "badRequest", f"Invalid input for field/attribute size. Value: {wished.get('size')}.")
        if len(self.volumes) >= self.quota_volumes:
            allowed = f"Maximum number of volumes allowed ({self.quota_volumes}) exceeded for quota 'volumes'."
            return _over_quota(f"VolumeLimitExceeded: {allowed}")
        if sum(volume.size for volume in self.volumes.values()) + wished["size"] > self.quota_gigabytes:
            return _over_quota("VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed quota.")
        marks = dict(wished.get("metadata") or {})
        made = CloudVolume(str(uuid4()), wished.get("name") or "", wished["size"], wished["volume_type"], marks)
        self.volumes[made.id] = made
        self.created += 1
        self.made_for[json.dumps(marks, sort_keys=True)] += 1
        fresh = made.view(fresh=True)
        if fault == "error":
            made.turns = [(made.made_at + self.create_delay, "error")]
            made.message = "schedule allocate volume:Could not find any available weighted backend."
        elif fault != "stuck":
            made.turns = [(made.made_at + self.create_delay, "available")]
        return Reply(202, {"volume": fresh})

    def _list(self, asked: Asked, version: tuple[int, int]) -> Reply:
        unknown = set(asked.query) - FILTERS
        if unknown and version >= (3, 31):
            return _error(
                400, "badRequest", f"Invalid filters {', '.join(sorted(unknown))} are found in query options."
            )
        marks = _marks(asked.query.get("metadata"))
        rows = sorted(self._listed(), key=lambda volume: (volume.created_at, volume.id))
        start = 0
        if marker := asked.query.get("marker"):
            at = next((index for index, volume in enumerate(rows) if volume.id == marker), None)
            if at is None or marker not in self.volumes:
                return _error(404, "itemNotFound", f"Volume {marker} could not be found.")
            start = at + 1
        rows = [v for v in rows[start:] if marks is not None and marks.items() <= v.metadata.items()]
        limit = min(int(asked.query.get("limit", self.most_at_once)), self.most_at_once)
        body: dict[str, Any] = {"volumes": [volume.view() for volume in rows[:limit]]}
        if len(rows) > limit:
            href = f"http://inside.cloud:8776/v3/{PROJECT}/volumes/detail?limit={limit}&marker={rows[limit - 1].id}"
            body["volumes_links"] = [{"rel": "next", "href": href}]
        return Reply(200, body)

    def _listed(self) -> list[CloudVolume]:
        """What a list shows: a replica of the database that lags knows nothing of the last while."""
        if not self.list_lag:
            return list(self.volumes.values())
        then = time.monotonic() - self.list_lag
        old = [volume for volume in self.volumes.values() if volume.made_at <= then]
        return old + [volume for volume in self.ended[-200:] if (volume.gone_at or 0) > then >= volume.made_at]

    def _rename(self, volume: CloudVolume, asked: Asked) -> Reply:
        wished = asked.json()["volume"]
        if volume.status == "maintenance":
            return _error(
                400, "badRequest", "Invalid volume: Updating volume metadata is not allowed in maintenance status"
            )
        if "metadata" in wished:
            volume.metadata = dict(wished["metadata"])
        volume.name = wished.get("name", volume.name)
        return Reply(200, {"volume": volume.view()})

    def _delete(self, volume: CloudVolume, fault: str | None) -> Reply:
        if volume.status not in DELETABLE:
            told = f"Invalid volume: Volume status must be available or error, but current status is: {volume.status}."
            return _error(400, "badRequest", told)
        volume.status = "deleting"
        now = time.monotonic()
        volume.turns = [(now + self.delete_delay, "error_deleting" if fault == "error_deleting" else "gone")]
        return Reply(202)

    def _action(self, volume: CloudVolume, asked: Asked, is_admin: bool) -> Reply:
        action = next(iter(asked.json()))
        if not is_admin:
            rule = "volume_extension:volume_admin_actions:force_delete"
            return _error(403, "forbidden", f"Policy doesn't allow {rule} to be performed.")
        if action == "os-force_delete":
            volume.turns = [(time.monotonic() + self.delete_delay, "gone")]
        return Reply(202)

    def _limits(self) -> Reply:
        absolute = {
            "maxTotalVolumes": self.quota_volumes,
            "totalVolumesUsed": len(self.volumes),
            "maxTotalVolumeGigabytes": self.quota_gigabytes,
            "totalGigabytesUsed": sum(volume.size for volume in self.volumes.values()),
        }
        return Reply(200, {"limits": {"rate": [], "absolute": absolute}})

    def _settle(self) -> None:
        now = time.monotonic()
        for volume in list(self.volumes.values()):
            volume.settle(now)
            if volume.status == "gone":
                self.ended.append(self.volumes.pop(volume.id))


def _operation(asked: Asked) -> str:
    path = asked.path.rstrip("/")
    if path.startswith("/identity"):
        return "token" if path.endswith("/auth/tokens") else "identity"
    if path in {"/volume", "/volume/v3"}:
        return "versions"
    for ending, operation in (("/limits", "limits"), ("/messages", "messages"), ("/volumes/detail", "list")):
        if path.endswith(ending):
            return operation
    if path.endswith("/volumes"):
        return "create" if asked.method == "POST" else "list"
    if path.endswith("/action"):
        return "action"
    return {"PUT": "rename", "DELETE": "delete"}.get(asked.method, "get")


def _version_asked(asked: Asked) -> tuple[int, int]:
    text = asked.headers.get("openstack-api-version", "volume 3.0").removeprefix("volume ")
    major, _, minor = text.partition(".")
    return int(major), int(minor)


def _marks(text: str | None) -> Mapping[str, str] | None:
    """JSON or the text of a Python dict; None, which matches nothing, where it is neither."""
    if text is None:
        return {}
    for read in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError):
            value = read(text)
            return value if isinstance(value, dict) else None
    return None


def _error(status: int, key: str, message: str) -> Reply:
    return Reply(status, {key: {"code": status, "message": message}})


def _unauthorized() -> Reply:
    told = {"code": 401, "message": "The request you have made requires authentication.", "title": "Unauthorized"}
    return Reply(401, {"error": told}, {"WWW-Authenticate": 'Keystone uri="http://127.0.0.1/identity/v3"'})


def _over_quota(message: str) -> Reply:
    return Reply(413, {"overLimit": {"code": 413, "message": message, "retryAfter": "0"}}, {"Retry-After": "0"})
