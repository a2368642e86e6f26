import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from pydantic import SecretStr

from proctor_common.log_config import configure_logging


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logging("demo", "info", stream=stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_one_json_object_a_line_from_both_kinds_of_logger(out: io.StringIO) -> None:
    structlog.get_logger("a").info("one", run="r\n1")
    logging.getLogger("b").warning("two %s", 2)
    structlog.get_logger("a").debug("not shown")
    first, second = lines(out)
    assert (first["event"], first["run"], first["service"], first["level"], first["logger"]) == (
        "one",
        "r\n1",
        "demo",
        "info",
        "a",
    )
    assert str(first["timestamp"]).endswith("Z")
    assert (second["event"], second["logger"]) == ("two 2", "b")


def test_secrets_stay_out(out: io.StringIO) -> None:
    token = "s3cret"
    log = structlog.get_logger("a")
    log.info("x", token=token, database_password=token, nkey_seed=token, other=SecretStr(token))
    log.info("x", server=f"nats://user:{token}@host:4222", sequence=3)
    try:
        password = token
        raise ValueError("failed") from OSError(len(password))
    except ValueError:
        log.exception("x")
    assert token not in out.getvalue()
    assert "nats://user:***@host:4222" in out.getvalue()
    assert "ValueError: failed" in out.getvalue()


def test_asyncio_says_nothing_where_a_tls_connection_ends(out: io.StringIO) -> None:
    logging.getLogger("asyncio").warning("returning true from eof_received() has no effect when using ssl")
    logging.getLogger("asyncio").warning("something else")
    assert [line["event"] for line in lines(out)] == ["something else"]
