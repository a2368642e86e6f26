"""Which cloud and account to use: the pool's own settings, clouds.yaml, or ``OS_*``. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

DEFAULT_DOMAIN = "Default"
WHO = ("OS_USERNAME", "OS_USER_ID", "OS_APPLICATION_CREDENTIAL_ID", "OS_APPLICATION_CREDENTIAL_NAME", "OS_TOKEN")


@dataclass(frozen=True)
class CloudSource:
    """The pool's account. If nothing is set, it is that of ``OS_*`` or clouds.yaml.

    With ``auth_url`` (and ``user``, ``password``, ``project``, as in the legacy ``[auth_args]``) neither clouds.yaml
    nor ``OS_*`` is read. ``cloud`` names an entry of clouds.yaml. Times in seconds.
    """

    cloud: str | None = None
    auth_url: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    project: str | None = None
    user_domain: str = DEFAULT_DOMAIN
    project_domain: str = DEFAULT_DOMAIN
    region: str | None = None
    interface: str | None = None
    """``public``, ``internal`` or ``admin``."""
    cacert: str | None = None
    """PEM file of the CA that signed the cloud's certificates."""
    connect_timeout: float = 5.0
    call_timeout: float = 30.0
    """For one call, without its repetition; also for one login."""

    def arguments(self) -> dict[str, Any]:
        """Arguments of openstack.config, which override what it reads itself."""
        given: dict[str, Any] = {"api_timeout": self.call_timeout}
        given |= {
            name: value
            for name, value in (
                ("region_name", self.region),
                ("interface", self.interface),
                ("cacert", self.cacert),
            )
            if value
        }
        if self.auth_url is not None:
            given["auth_type"] = "password"
            given["auth"] = {
                "auth_url": self.auth_url,
                "username": self.user,
                "password": self.password,
                "project_name": self.project,
                "user_domain_name": self.user_domain,
                "project_domain_name": self.project_domain,
            }
        return given


def names_a_cloud(source: CloudSource, environ: Mapping[str, str]) -> bool:
    """Whether a cloud is configured: by the settings, or by ``OS_CLOUD`` or ``OS_AUTH_URL``."""
    return bool(source.cloud or source.auth_url or environ.get("OS_CLOUD") or environ.get("OS_AUTH_URL"))


def complete(source: CloudSource, environ: Mapping[str, str]) -> CloudSource:
    """The legacy ``[auth_args]`` have no address: ``OS_AUTH_URL`` gives it if ``OS_*`` names no user."""
    url = environ.get("OS_AUTH_URL")
    if source.auth_url or source.cloud or not source.user or not url or environ.get("OS_CLOUD"):
        return source
    if any(environ.get(name) for name in WHO):
        return source
    return replace(
        source,
        auth_url=url,
        user_domain=environ.get("OS_USER_DOMAIN_NAME", source.user_domain),
        project_domain=environ.get("OS_PROJECT_DOMAIN_NAME", source.project_domain),
        region=source.region or environ.get("OS_REGION_NAME"),
        interface=source.interface or environ.get("OS_INTERFACE"),
        cacert=source.cacert or environ.get("OS_CACERT"),
    )
