"""One login to the cloud, by keystoneauth1 and openstack.config. Blocking: use it in a thread.

Both libraries are the extra ``openstack`` of this distribution and are loaded at the first login only.
"""

import importlib.util
import logging
import os
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from proctor_common.service import ConfigurationError
from proctor_controller.volumes.backend import BackendDown, BadRequest
from proctor_controller.volumes.cinder.source import CloudSource, complete

if TYPE_CHECKING:
    from openstack.config.cloud_region import CloudRegion

SERVICE_TYPE = "block-storage"
"""The official name; keystoneauth1 knows the older ones (``volumev3``, ``block-store``, …) as its aliases."""
EXTRA = "needs the extra `openstack` of proctor-controller: install services/controller[openstack]"
SHORTEST_MARGIN, LONGEST_MARGIN = 0.25, 120.0


@dataclass(frozen=True)
class Access:
    """The result of a login. Times are the machine's monotonic seconds, unaffected by changes of the clock."""

    token: str = field(repr=False)
    endpoint: str
    """Of block storage, from the catalog, without a slash at its end."""
    project: str
    renew_at: float
    ends_at: float


def check_extra() -> None:
    """Raises ConfigurationError if the libraries are missing. Loads nothing."""
    if any(importlib.util.find_spec(name) is None for name in ("keystoneauth1", "openstack")):
        raise ConfigurationError(f"the volume backend cinder {EXTRA}")


class Login:
    """A cloud's account, opened once; may log in any number of times."""

    def __init__(self, source: CloudSource) -> None:
        self._source = source
        self._opened: CloudRegion | None = None
        # A cancelled login may still hang in its thread.
        self._one_at_a_time = threading.Lock()

    def tls(self) -> ssl.SSLContext:
        """How to check the cloud's certificates: with its own CA if one is named. Raises BadRequest."""
        with self._one_at_a_time:
            verify, cert = self._region().get_requests_verify_args()
        try:
            context = ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
            if verify is False:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            if cert:
                context.load_cert_chain(*((cert,) if isinstance(cert, str) else cert))
        except OSError as fault:
            named = " and ".join(str(name) for name in (verify, cert) if name not in {None, True, False})
            raise BadRequest(f"cannot use the certificates in {named}: {fault}") from fault
        return context

    def log_in(self) -> Access:
        """Log in. Raises BackendDown (no token available) or BadRequest (the settings are wrong)."""
        with self._one_at_a_time:
            return self._log_in()

    def _log_in(self) -> Access:
        region = self._region()
        from keystoneauth1 import exceptions

        asked = time.monotonic()
        try:
            session = region.get_session()
            plugin: Any = session.auth
            plugin.invalidate()
            access = plugin.get_access(session)
        except exceptions.Unauthorized as fault:
            raise BackendDown(
                "the cloud refuses the login (wrong password or secret, no such project, or no role in it: it does "
                f"not say which): {_text_of(fault)}"
            ) from fault
        except (exceptions.ClientException, OSError) as fault:
            raise BackendDown(f"no token from the cloud: {_text_of(fault)}") from fault
        except (AttributeError, TypeError) as fault:
            raise BadRequest(f"this kind of login gives no catalog: {_text_of(fault)}") from fault
        if not access.project_id:
            raise BadRequest("the login is for no project: name one (OS_PROJECT_NAME, or project_name in clouds.yaml)")
        lifetime = (access.expires - access.issued).total_seconds() if access.issued else 600.0
        margin = min(LONGEST_MARGIN, lifetime * SHORTEST_MARGIN)
        return Access(
            token=access.auth_token,
            endpoint=self._endpoint(region, access),
            project=access.project_id,
            renew_at=asked + max(0.0, lifetime - margin),
            ends_at=asked + lifetime,
        )

    def _region(self) -> "CloudRegion":
        if self._opened is None:
            self._opened = _open(self._source)
        return self._opened

    def _endpoint(self, region: "CloudRegion", access: Any) -> str:
        given = region.get_endpoint(SERVICE_TYPE)
        if given:
            return given.rstrip("/")
        interface = region.get_interface(SERVICE_TYPE) or "public"
        named = region.get_region_name(SERVICE_TYPE) or None
        try:
            found = access.service_catalog.get_endpoint_data_list(
                service_type=SERVICE_TYPE, interface=interface, region_name=named
            )
        except ValueError:
            # keystoneauth1 reports in this way that none of several services of this type has such an endpoint.
            found = []
        usable = [one.url for one in found if not one.service_type.endswith("v2") and "/v2/" not in one.url]
        if not usable:
            raise BadRequest(
                f"the cloud's catalog has no block storage with interface {interface}"
                f"{f' in region {named}' if named else ''}; it has {_offers(access) or 'none at all'}"
            )
        return str(usable[0]).rstrip("/")


def _open(source: CloudSource) -> "CloudRegion":
    try:
        from keystoneauth1 import exceptions as auth_faults
        from openstack import exceptions as config_faults
        from openstack.config import OpenStackConfig
    except ImportError as missing:
        raise BadRequest(f"the volume backend cinder {EXTRA}") from missing
    # Its warnings at each failed login are also raised as faults, and logged by the caller.
    logging.getLogger("keystoneauth").setLevel(logging.ERROR)
    source = complete(source, os.environ)
    alone = source.auth_url is not None
    try:
        config = OpenStackConfig(load_yaml_config=not alone, load_envvars=not alone, app_name="proctor")
        return config.get_one(cloud=source.cloud, **source.arguments())
    except (config_faults.ConfigException, auth_faults.ClientException, OSError, ValueError, KeyError) as fault:
        raise BadRequest(f"cannot tell which cloud and account to use: {_text_of(fault)}") from fault


def _offers(access: Any) -> str:
    """The catalog's block storage services, for the message."""
    every = access.service_catalog.get_endpoint_data_list(service_type=SERVICE_TYPE, interface=None)
    return ", ".join(sorted({f"{one.interface} in {one.region_name}" for one in every}))


def _text_of(fault: BaseException) -> str:
    """The fault in one line of bounded length; the libraries name the cause last."""
    text = " ".join(str(fault).split()) or type(fault).__name__
    return text if len(text) <= 400 else f"{text[:150]} … {text[-240:]}"
