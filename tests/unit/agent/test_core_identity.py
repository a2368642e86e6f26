"""Joining: the agent's own key, the one-time token, what is kept, and one clear line where it fails."""

import io
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from proctor_agent.__main__ import main
from proctor_agent.identity import IDENTITY_FILE, KEY_FILE, load_identity, own_seed, public_key
from proctor_common.service import StartError

TOKEN = "join_" + "t" * 43
VIEW = {"agent": "a-1", "host": "node-1", "nats": {"urls": ["tls://nats:4222"], "ca": "-----BEGIN CERTIFICATE-----\n"}}


class Api:
    """Answers joins as the api does."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.status = 200
        self.put_off = 0
        """How often it asks for a second's time first."""
        self.body = json.dumps(VIEW)
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                api.asked.append({"path": self.path, **json.loads(body)})
                api.put_off -= 1
                self.send_response(api.status if api.put_off < 0 else 429)
                if api.put_off >= 0:
                    self.send_header("Retry-After", "1")
                self.end_headers()
                self.wfile.write(api.body.encode() if api.put_off < 0 else b'{"detail": "too many tries"}')

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def api() -> Iterator[Api]:
    made = Api()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PROCTOR_AGENT_DATA_DIR", str(tmp_path / "agent"))
    return tmp_path / "agent"


def test_the_key_is_made_once_and_private(tmp_path: Path) -> None:
    seed = own_seed(tmp_path)
    assert own_seed(tmp_path) == seed
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert public_key(seed).startswith("U")
    assert len(public_key(seed)) == 56


def test_join_with_the_token_from_standard_input(
    api: Api, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{TOKEN}\n"))
    monkeypatch.setattr("os.isatty", lambda _: False)
    assert main(["join", f"{api.url}/"]) == 0
    assert capsys.readouterr().out == "joined as node-1; now start it: proctor-agent run\n"
    assert api.asked == [{"path": "/v1/agents/join", "token": TOKEN, "public_key": public_key(own_seed(data))}]
    identity = load_identity(data)
    assert identity is not None
    assert (identity.agent, identity.host, identity.nats_urls) == ("a-1", "node-1", ["tls://nats:4222"])
    assert data.stat().st_mode & 0o777 == 0o700
    assert (data / IDENTITY_FILE).stat().st_mode & 0o777 == 0o600
    assert not any(TOKEN in path.read_text() for path in data.iterdir())
    assert main(["join", api.url]) == 1
    assert "has joined already, as node-1" in capsys.readouterr().err
    assert len(api.asked) == 1


def test_a_retry_shows_the_same_key(api: Api, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    words = ["join", api.url, "--token-file", str(tmp_path / "token")]
    api.status, api.body = 503, json.dumps({"detail": "the bus is away", "code": "bus_unavailable"})
    assert main(words) == 1
    assert capsys.readouterr().err == f"proctor agent: cannot join at {api.url}: the bus is away\n"
    api.status, api.body = 200, json.dumps(VIEW)
    assert main(words) == 0
    assert api.asked[0] == api.asked[1]


def test_an_api_that_asks_for_time_gets_it(
    api: Api, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROCTOR_AGENT_JOIN_TOKEN", TOKEN)
    api.put_off = 1
    assert main(["join", api.url]) == 0
    assert capsys.readouterr().err == "too many tries; trying again in 1 s\n"
    assert api.asked[0] == api.asked[1]


@pytest.mark.parametrize("body", ["<html>", "[]", '{"agent": "a-1"}', '{"agent": "a", "host": "h", "nats": null}'])
def test_what_is_no_api_is_said_to_be_none(
    api: Api, data: Path, body: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROCTOR_AGENT_JOIN_TOKEN", TOKEN)
    api.body = body
    assert main(["join", api.url]) == 1
    assert "what answers there is no Proctor api" in capsys.readouterr().err
    assert load_identity(data) is None


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense", "http://["])
def test_an_address_without_an_api(
    data: Path, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROCTOR_AGENT_JOIN_TOKEN", TOKEN)
    assert main(["join", url]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"proctor agent: cannot join at {url}: ")
    assert said.count("\n") == 1


def test_run_without_an_identity_says_how_to_get_one(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run"]) == 1
    said = capsys.readouterr().err
    assert "this agent has not joined" in said
    assert "proctor agents enroll HOST" in said


def test_a_damaged_identity_is_named(tmp_path: Path) -> None:
    (tmp_path / IDENTITY_FILE).write_text("{")
    with pytest.raises(StartError, match=IDENTITY_FILE):
        load_identity(tmp_path)


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "proctor-agent join https://" in capsys.readouterr().out


def test_a_wrong_setting_is_named(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROCTOR_AGENT_SLOTZ", "3")
    assert main(["run"]) == 2
    assert "PROCTOR_AGENT_SLOTZ: no such setting; the nearest is PROCTOR_AGENT_SLOTS" in capsys.readouterr().err


def test_a_default_target_that_is_none(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "agent.toml").write_text('default_target = "mars"\n[targets.lab]\nhost = "127.0.0.1"\n')
    assert main(["run", "--config", str(tmp_path / "agent.toml")]) == 2
    assert "default_target: no such target: mars" in capsys.readouterr().err
