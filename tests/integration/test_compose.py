"""The compose deployment, as far as it can be checked without a container engine: shape, secrets, users, commands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy" / "compose"
OURS = {"api", "controller", "agent"}


@pytest.fixture(scope="module")
def compose() -> dict:
    return yaml.safe_load((COMPOSE / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `proctor init` makes, called as the init service calls it."""
    folder = tmp_path_factory.mktemp("compose") / "secrets"
    command = [str(Path(sys.executable).parent / "proctor"), "init", str(folder), "--name", "lab.example"]
    more = ["--nats-files", "/run/secrets", "--nats-store", "/data/jetstream"]
    subprocess.run([*command, *more], check=True, capture_output=True, timeout=60)
    return folder


def _services(compose: dict) -> dict[str, dict]:
    return {name: service for name, service in compose["services"].items() if name != "init"}


def test_each_service_is_watched_and_is_nobody_special(compose: dict) -> None:
    for name, service in _services(compose).items():
        assert "healthcheck" in service, name
        assert "PROCTOR_UID" in service["user"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name
        assert "privileged" not in service, name
    assert compose["services"]["controller"]["deploy"]["replicas"] == 2


def test_every_secret_is_made_by_init_or_by_enrolment(compose: dict, secrets: Path) -> None:
    for name, secret in compose["secrets"].items():
        path = secrets / Path(secret["file"]).relative_to("secrets")
        assert path.exists() or name == "join.token", f"{name}: proctor init makes no {path}"
        if path.exists():
            assert path.stat().st_mode & 0o077 == 0, f"{name} is open to others"
    for name, service in compose["services"].items():
        for secret in service.get("secrets", []):
            assert secret in compose["secrets"], f"{name}: {secret}"


def test_nothing_secret_stands_in_the_environment(compose: dict) -> None:
    for name, service in compose["services"].items():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|KEY|TOKEN", variable):
                assert variable.endswith("_FILE"), f"{name}: {variable}"
                assert str(value).startswith("/run/secrets/"), f"{name}: {variable}"


def test_every_variable_has_a_default_or_stands_in_the_example() -> None:
    text = (COMPOSE / "compose.yaml").read_text()
    example = (COMPOSE / ".env.example").read_text()
    for variable, default in re.findall(r"\$\{([A-Z_]+)(:-[^}]*)?", text):
        assert default or f"{variable}=" in example, variable


def test_the_servers_take_the_configuration_that_init_writes(secrets: Path) -> None:
    conf = (secrets / "nats" / "nats-server.conf").read_text().replace("/run/secrets", str(secrets / "tls"))
    local = secrets / "checked.conf"
    local.write_text(conf)
    server = Path(sys.executable).parent / "nats-server"
    done = subprocess.run([server, "-t", "-c", local], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("service", sorted(OURS))
def test_the_settings_of_a_service_are_ones_it_knows(compose: dict, secrets: Path, service: str) -> None:
    """Each image's command, as a process with its service's environment, gets as far as the missing network."""
    given = {}
    for variable, value in compose["services"][service]["environment"].items():
        shown = str(value).replace("/var/lib/proctor-agent", str(secrets / "agent-data"))
        shown = re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", shown)
        given[variable] = re.sub(r"/run/secrets/([\w.]+)", lambda m: str(_secret(compose, secrets, m[1])), shown)
    for variable, value in list(given.items()):
        # Names of the compose network mean nothing here: a closed port on loopback refuses at once.
        given[variable] = re.sub(r"@postgres/", "@127.0.0.1:9/", value).replace("//nats:4222", "//127.0.0.1:9")
        given[variable] = given[variable].replace("https://api:8774", "https://127.0.0.1:9")
    given[f"PROCTOR_{service.upper()}_START_TIMEOUT"] = "1"
    environment = {"PATH": os.environ["PATH"], **given}
    command = [str(Path(sys.executable).parent / f"proctor-{service}")]
    if service == "agent":
        command += ["--config", str(COMPOSE / "agent" / "agent.toml")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, f"{done.returncode}: {done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr


def _secret(compose: dict, secrets: Path, name: str) -> Path:
    path = secrets / Path(compose["secrets"][name]["file"]).relative_to("secrets")
    if not path.exists():
        path.write_text("nothing\n")
    return path


def test_the_images_are_built_from_the_lock_as_nobody() -> None:
    dockerfile = (COMPOSE / "Dockerfile").read_text()
    assert "USER 65532:65532" in dockerfile
    assert "requirements.lock" in dockerfile
    assert "--require-hashes" in (COMPOSE / "install.sh").read_text()
    for image in ("api", "controller", "agent", "init"):
        assert f"AS {image}\n" in dockerfile


def test_ssh_finds_a_local_user_where_the_uid_has_none() -> None:
    """compose runs the images as the caller's uid, which no /etc/passwd in them knows."""
    environment = re.search(
        r"^FROM .* AS runtime\n(?:#.*\n)*ENV (.*)$", (COMPOSE / "Dockerfile").read_text(), re.MULTILINE
    )
    assert environment is not None
    given = dict(part.split("=", 1) for part in environment[1].split())
    assert given["LOGNAME"]
    assert given["HOME"] == "/tmp", "the root is read-only, /tmp is a tmpfs"


def test_the_unit_starts_what_is_installed() -> None:
    unit = (ROOT / "deploy" / "systemd" / "proctor-agent.service").read_text()
    assert "ExecStart=/opt/proctor-agent/bin/proctor-agent run --config" in unit
    for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "User=proctor-agent", "Restart=always"):
        assert line in unit
