from pathlib import Path
from typing import ClassVar, Literal

import pytest
from pydantic import BaseModel, Field, SecretStr

from proctor_common.service import ConfigurationError
from proctor_common.settings import ServiceSettings, load_settings


class Target(BaseModel):
    host: str
    port: int = 22


class Settings(ServiceSettings):
    SERVICE: ClassVar[str] = "demo"
    http_port: int = Field(8774, ge=1, le=65535)
    mode: Literal["none", "viewer"] = "none"
    servers: tuple[str, ...] = ()
    targets: dict[str, Target] = {}
    database_password: SecretStr
    cache: Path | None = None


def load(text: str | None = None, folder: Path | None = None, **environ: str) -> Settings:
    config = None
    if text is not None and folder is not None:
        config = folder / "demo.toml"
        config.write_text(text)
    return load_settings(Settings, config=config, environ={f"PROCTOR_DEMO_{k}": v for k, v in environ.items()})


def test_environment_goes_before_file_before_default(tmp_path: Path) -> None:
    settings = load("http_port = 1\nmode = 'viewer'\ndatabase_password = 'x'", tmp_path, HTTP_PORT="2")
    assert (settings.http_port, settings.mode, settings.log_level) == (2, "viewer", "info")


def test_other_services_names_are_none_of_ours() -> None:
    environ = {"PROCTOR_API_NONSENSE": "1", "PROCTOR_URL": "x", "PROCTOR_DEMO_DATABASE_PASSWORD": "x", "HOME": "/"}
    assert load_settings(Settings, environ=environ).http_port == 8774


def test_lists_and_mappings_in_the_environment() -> None:
    settings = load(SERVERS="a:1, b:2", TARGETS='{"t": {"host": "h"}}', DATABASE_PASSWORD="1234", CACHE="/var/x")
    assert settings.servers == ("a:1", "b:2")
    assert settings.targets == {"t": Target(host="h")}
    assert settings.database_password.get_secret_value() == "1234"
    assert settings.cache == Path("/var/x")
    assert load(SERVERS='["c"]', DATABASE_PASSWORD="x").servers == ("c",)


@pytest.mark.parametrize("way", ["environment", "file"])
def test_a_secret_from_a_file(tmp_path: Path, way: str) -> None:
    secret = tmp_path / "pw"
    secret.write_text(" s3cret \n")
    if way == "environment":
        settings = load(DATABASE_PASSWORD_FILE=str(secret))
    else:
        settings = load('database_password_file = "pw"', tmp_path)
    assert settings.database_password.get_secret_value() == " s3cret "
    assert "s3cret" not in repr(settings)


def test_all_faults_are_told_at_once_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load("http_prot = 1\n", tmp_path, MODE="viewr", DATABSE_PASSWORD="s3cret", HTTP_PORT="99999")
    text = caught.value.message
    assert caught.value.code == 2
    assert "http_prot: no such setting; the nearest is" in text
    assert "demo.toml: http_port" in text
    assert "PROCTOR_DEMO_DATABSE_PASSWORD: no such setting; the nearest is PROCTOR_DEMO_DATABASE_PASSWORD" in text
    assert "mode: Input should be 'none' or 'viewer'" in text
    assert "http_port: Input should be less than or equal to 65535" in text
    assert "database_password: is missing (in the environment: PROCTOR_DEMO_DATABASE_PASSWORD)" in text
    assert "s3cret" not in text


def test_a_secret_given_twice_or_unreadable(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="only one of them"):
        load(DATABASE_PASSWORD="x", DATABASE_PASSWORD_FILE=str(tmp_path / "pw"))
    with pytest.raises(ConfigurationError, match=r"cannot read .*No such file"):
        load(DATABASE_PASSWORD_FILE=str(tmp_path / "pw"))


def test_only_secrets_come_from_files() -> None:
    with pytest.raises(ConfigurationError, match="HTTP_PORT_FILE: no such setting"):
        load(HTTP_PORT_FILE="x", DATABASE_PASSWORD="x")


def test_the_file_itself(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is no TOML"):
        load("http_port =", tmp_path)
    with pytest.raises(ConfigurationError, match="cannot read"):
        load_settings(Settings, config=tmp_path / "none.toml", environ={})
    with pytest.raises(ConfigurationError, match=r"targets\.t\.host"):
        load("[targets.t]\nport = 1\n", tmp_path, DATABASE_PASSWORD="x")
