"""Logging in to a cloud: every way to name an account, renewal, the catalog, certificates, versions."""

import asyncio
import importlib.util
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proctor_cli.init.certificates import new_ca, new_key, new_server_certificate
from proctor_common.ids import new_id
from proctor_common.service import ConfigurationError
from proctor_controller.volumes.backend import BackendDown, BadRequest
from proctor_controller.volumes.cinder.backend import open_cinder
from proctor_controller.volumes.cinder.source import CloudSource, complete, names_a_cloud
from support.cloud import PROJECT, Cloud
from support.openstack import backend_on, source_of
from support.wait import eventually

HERE = "lab-1"
pytestmark = pytest.mark.filterwarnings("ignore:Support for InfluxDB")


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    made = Cloud().start()
    yield made
    made.close()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The caller's own cloud must not be met; what a test names is."""
    for name in [name for name in os.environ if name.startswith("OS_")]:
        monkeypatch.delenv(name)
    file = tmp_path / "clouds.yaml"
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(file))

    def write(clouds: str = "{}", **environ: str) -> None:
        file.write_text(f"clouds: {clouds}\n")
        for name, value in environ.items():
            monkeypatch.setenv(name, value)

    write()
    return write


async def rooms(source: CloudSource) -> int | None:
    """One call that needs a token, the catalog and the version."""
    backend = open_cinder(source, HERE)
    try:
        return await backend.room()
    finally:
        await backend.close()


async def test_the_account_of_the_environment(cloud: Cloud, settings: Callable[..., None]) -> None:
    settings(**cloud.environment())
    assert await rooms(CloudSource()) == 10_000


async def test_an_application_credential(cloud: Cloud, settings: Callable[..., None]) -> None:
    identifier, secret = cloud.credential
    settings(
        OS_AUTH_URL=cloud.auth_url,
        OS_AUTH_TYPE="v3applicationcredential",
        OS_APPLICATION_CREDENTIAL_ID=identifier,
        OS_APPLICATION_CREDENTIAL_SECRET=secret,
        OS_REGION_NAME="RegionOne",
    )
    assert await rooms(CloudSource()) == 10_000


async def test_an_entry_of_clouds_yaml_by_name_and_by_os_cloud(cloud: Cloud, settings: Callable[..., None]) -> None:
    auth = (
        f"{{auth_url: '{cloud.auth_url}', username: member, password: member, project_name: lab, "
        "user_domain_name: Default, project_domain_name: Default}"
    )
    clouds = (
        f"{{lab: {{region_name: RegionOne, auth: {auth}}}, other: {{auth: {{auth_url: 'http://127.0.0.1:1/v3'}}}}}}"
    )
    settings(clouds)
    assert await rooms(CloudSource(cloud="lab")) == 10_000
    settings(clouds, OS_CLOUD="lab")
    assert await rooms(CloudSource()) == 10_000
    with pytest.raises(BadRequest, match="nosuch"):
        await rooms(CloudSource(cloud="nosuch"))


async def test_the_three_legacy_keys_with_an_address(cloud: Cloud, settings: Callable[..., None]) -> None:
    legacy = CloudSource(user="member", password="member", project="lab")
    with pytest.raises(BadRequest, match="cannot tell which cloud"):
        await rooms(legacy)
    assert await rooms(source_of(cloud)) == 10_000
    settings(OS_AUTH_URL=cloud.auth_url)
    assert await rooms(legacy) == 10_000, "the address comes from the environment where it does not say who we are"


def test_whose_account_is_used_is_decided_by_name() -> None:
    legacy = CloudSource(user="admin", password="admin", project="admin")
    assert complete(legacy, {"OS_AUTH_URL": "http://a/v3"}).auth_url == "http://a/v3"
    assert complete(legacy, {"OS_AUTH_URL": "http://a/v3", "OS_USERNAME": "me"}).auth_url is None
    assert complete(legacy, {"OS_AUTH_URL": "http://a/v3", "OS_CLOUD": "lab"}).auth_url is None
    assert not names_a_cloud(legacy, {}) and names_a_cloud(legacy, {"OS_CLOUD": "lab"})
    assert "admin" not in repr(CloudSource(password="admin"))


async def test_a_wrong_password_is_told_without_it(cloud: Cloud, settings: Callable[..., None]) -> None:
    with pytest.raises(BackendDown, match="refuses the login") as refused:
        await rooms(source_of(cloud, password="not-this-one"))
    assert "not-this-one" not in str(refused.value)


async def test_a_token_is_renewed_before_its_end(cloud: Cloud) -> None:
    cloud.token_ttl = 0.8
    backend = backend_on(cloud, HERE)

    async def third_login() -> bool:
        await backend.room()
        return cloud.logins >= 3

    await eventually(third_login)
    assert cloud.refused_tokens == 0
    await backend.close()


async def test_eight_refused_calls_at_once_bring_one_new_token(cloud: Cloud) -> None:
    backend = backend_on(cloud, HERE)
    await backend.room()
    cloud.expire_tokens()
    made = await asyncio.gather(*(backend.create(new_id(), f"v{n}", "igw", 10) for n in range(8)))
    assert len(set(made)) == 8 and cloud.created == 8, "a 401 was not carried out, so even a create is sent again"
    assert cloud.logins == 2
    cloud.inject("limits", "401", times=2)
    with pytest.raises(BackendDown, match="fresh token"):
        await backend.room()
    assert await backend.room() is not None
    await backend.close()


async def test_a_token_that_holds_outlives_keystone(cloud: Cloud) -> None:
    cloud.token_ttl = 1.2
    backend = backend_on(cloud, HERE)
    await backend.room()
    cloud.chance = lambda operation: "503" if operation in {"token", "identity"} else None
    asked = cloud.calls["token"]

    async def tried_to_renew() -> bool:
        await backend.room()
        return cloud.calls["token"] > asked

    await eventually(tried_to_renew)
    await backend.room()

    async def down() -> bool:
        try:
            await backend.room()
        except BackendDown:
            return True
        return False

    await eventually(down)
    cloud.chance = None
    assert await backend.room() is not None
    await backend.close()


async def test_nobody_waits_for_a_renewal_while_the_old_token_is_good(cloud: Cloud) -> None:
    cloud.token_ttl = 6.0
    backend = backend_on(cloud, HERE)
    await backend.room()
    identity = backend.storage.identity
    assert identity._access is not None
    identity._access = replace(identity._access, renew_at=time.monotonic())
    cloud.slowness = 1.5
    cloud.inject("token", "slow")
    before = time.monotonic()
    await backend.room()
    assert time.monotonic() - before < 1.4
    assert identity.logins == 1
    await eventually(lambda: identity.logins == 2, what="the renewal behind it")
    await backend.close()


@pytest.mark.parametrize("kind", ["block-storage", "volumev3", "block-store"])
async def test_block_storage_is_found_under_each_of_its_names(cloud: Cloud, kind: str) -> None:
    cloud.catalog_types = ("compute", kind)
    assert await rooms(source_of(cloud)) == 10_000


async def test_a_catalog_without_the_project_in_its_addresses(cloud: Cloud) -> None:
    cloud.with_project = False
    assert await rooms(source_of(cloud)) == 10_000


async def test_region_and_interface_choose_the_endpoint(cloud: Cloud) -> None:
    cloud.regions = ("RegionOne", "RegionTwo")
    assert await rooms(source_of(cloud, region="RegionOne", interface="public")) == 10_000
    with pytest.raises(BackendDown, match="cannot reach"):
        await rooms(source_of(cloud, region="RegionOne", interface="internal"))
    with pytest.raises(BadRequest, match=r"in region Mars; it has admin in RegionOne.*public in RegionTwo"):
        await rooms(source_of(cloud, region="Mars"))
    cloud.catalog_types = ("compute",)
    with pytest.raises(BadRequest, match="none at all"):
        await rooms(source_of(cloud))


async def test_an_endpoint_may_be_named_by_hand(cloud: Cloud, settings: Callable[..., None]) -> None:
    good = cloud.auth_url.replace("/identity/v3", f"/volume/v3/{PROJECT}")
    cloud.catalog_types = ("compute",)
    settings(**cloud.environment(), OS_BLOCK_STORAGE_ENDPOINT_OVERRIDE=good)
    assert await rooms(CloudSource()) == 10_000


async def test_the_version_is_capped_and_an_old_cloud_refused(cloud: Cloud) -> None:
    backend = backend_on(cloud, HERE)
    cloud.highest = (3, 40)
    assert await backend.list_ours() == []
    await backend.close()
    cloud.highest = (3, 27)
    with pytest.raises(BadRequest, match=r"up to 3\.27; the pool needs 3\.31"):
        await rooms(source_of(cloud))


async def test_a_cloud_that_is_set_back_is_asked_again(cloud: Cloud) -> None:
    backend = backend_on(cloud, HERE)
    await backend.room()
    cloud.highest = (3, 40)
    with pytest.raises(BadRequest, match="not supported"):
        await backend.room()
    assert await backend.room() is not None
    await backend.close()


@pytest.fixture
def authority(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """An authority that no system trusts, and a server of its."""
    ca_key, key = new_key(), new_key()
    ca = new_ca(ca_key)
    files = {"ca.pem": ca, "server.pem": new_server_certificate(ca_key, ca, key, ["127.0.0.1"]), "key.pem": key}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "key.pem")
    return tmp_path / "ca.pem", context


async def test_tls_with_an_authority_of_ones_own(authority: tuple[Path, ssl.SSLContext], tmp_path: Path) -> None:
    ca, context = authority
    cloud = Cloud(tls=context).start()
    try:
        assert cloud.auth_url.startswith("https://")
        assert await rooms(source_of(cloud, cacert=str(ca))) == 10_000
        with pytest.raises(BackendDown, match="certificate verify failed"):
            await rooms(source_of(cloud))
        with pytest.raises((BadRequest, BackendDown), match=r"nosuch\.pem"):
            await rooms(source_of(cloud, cacert=str(tmp_path / "nosuch.pem")))
    finally:
        cloud.close()


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> Any:
        return None if name == "keystoneauth1" else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    with pytest.raises(ConfigurationError, match=r"services/controller\[openstack\]"):
        open_cinder(CloudSource(), HERE)


def test_the_libraries_are_loaded_by_a_login_only() -> None:
    code = (
        "import sys, proctor_controller.volumes.cinder.backend as b; from proctor_controller.volumes.cinder.source "
        "import CloudSource; b.check_extra(); sys.exit(any(n in sys.modules for n in ('keystoneauth1', 'requests')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
