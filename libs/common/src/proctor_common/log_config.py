"""Logging: one JSON object a line on standard error (plain text on a terminal), without secrets.

structlog and the standard library's loggers share it. Values of keys that name a secret are replaced, and tracebacks
contain no local variables, which may be tokens and passwords.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog
from pydantic import SecretBytes, SecretStr

LEVELS = ("debug", "info", "warning", "error")
_SECRET_KEY = re.compile(r"(?:^|_)(?:password|passwd|secret|secrets|seed|token|authorization|cookie|private_key|dsn)$")
_DSN_PASSWORD = re.compile(r"(://[^:/@\s]{0,256}:)[^@/\s]{1,1024}@")
HIDDEN = "***"
TLS_NOISE = "returning true from eof_received()"
"""asyncio logs this warning at the end of every connection that became TLS after it was opened, as NATS's do."""


def configure_logging(service: str, level: str = "info", *, stream: TextIO | None = None) -> None:
    """Set up all logging of the process. ``level``: one of :data:`LEVELS`; ``stream``: None: standard error."""
    out = stream or sys.stderr
    plain = out.isatty()
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
        hide_secrets,
    ]
    if plain:
        last: list[Any] = [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    else:
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(out)
    handler.addFilter(lambda record: not str(record.msg).startswith(TLS_NOISE))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _add_service(service), *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # The client's own error log repeats what the bus reports; the SQL and SSH libraries log too much below warning.
    logging.getLogger("nats").setLevel(logging.CRITICAL)
    for name in ("asyncssh", "sqlalchemy", "alembic", "apscheduler", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _add_service(service: str) -> Any:
    def add(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        return event

    return add


def hide_secrets(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace values whose key names a secret, secret types, and passwords in URLs."""
    for key, value in event.items():
        if isinstance(value, SecretStr | SecretBytes) or (value is not None and _SECRET_KEY.search(key.lower())):
            event[key] = HIDDEN
        elif isinstance(value, str) and "://" in value:
            event[key] = _DSN_PASSWORD.sub(rf"\1{HIDDEN}@", value)
    return event
