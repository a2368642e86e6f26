"""Addresses of `--http`, free ports."""

import json
import socket
from pathlib import Path

import pytest

from proctor_cli.faults import Usage
from proctor_cli.local.addresses import PRIVATE_PORTS, HttpAddress, claim_http, parse_http, private_ports
from proctor_cli.local.faults import CannotStart


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:8774", "127.0.0.1", 8774, True),
        ("localhost:1", "localhost", 1, True),
        ("[::1]:0", "::1", 0, True),
        (":8774", "127.0.0.1", 8774, True),
        ("8774", "127.0.0.1", 8774, True),
        ("0.0.0.0:80", "0.0.0.0", 80, False),
        ("[::]:80", "::", 80, False),
    ],
)
def test_parses(text: str, host: str, port: int, loopback: bool) -> None:
    address = parse_http(text)
    assert (address.host, address.port, address.is_loopback) == (host, port, loopback)


@pytest.mark.parametrize(
    "text", ["", "x", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "a.example:80", "::1:80", "1:2:3"]
)
def test_refuses(text: str) -> None:
    with pytest.raises(Usage, match="--http"):
        parse_http(text)


def test_an_address_that_means_all_is_reached_at_loopback() -> None:
    assert HttpAddress("0.0.0.0", 80).reached_at == "127.0.0.1:80"
    assert HttpAddress("::", 80).reached_at == "[::1]:80"
    assert HttpAddress("127.0.0.2", 80).reached_at == "127.0.0.2:80"


def test_a_taken_port_is_named_and_a_free_one_found() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(CannotStart, match=f"127.0.0.1:{port} is taken"):
            claim_http(HttpAddress("127.0.0.1", port))
    assert claim_http(HttpAddress("127.0.0.1", port)).port == port
    assert claim_http(HttpAddress("127.0.0.1", 0)).port in PRIVATE_PORTS


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(CannotStart, match=r"cannot listen on 192\.0\.2\.1:8774"):
        claim_http(HttpAddress("192.0.2.1", 8774))


def test_private_ports_are_kept_while_they_are_free(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first = private_ports(file, ("nats", "ssh"))
    assert len(set(first.values())) == 2
    assert private_ports(file, ("nats", "ssh")) == first
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", first["nats"]))
        holder.listen()
        second = private_ports(file, ("nats", "ssh"))
    assert second["nats"] != first["nats"]
    assert second["ssh"] == first["ssh"]


@pytest.mark.parametrize(
    "content", ["", "[]", "nonsense", json.dumps({"nats": "x", "ssh": 22}), '{"nats": 20001, "ssh": 20001}']
)
def test_a_damaged_file_of_ports_does_not_matter(tmp_path: Path, content: str) -> None:
    file = tmp_path / "ports.json"
    file.write_text(content)
    found = private_ports(file, ("nats", "ssh"))
    assert len({*found.values()} & {*PRIVATE_PORTS}) == 2
