"""Databases that tests have one after the other. To copy a template is to write nine megabytes; to empty the few
tables that a test has filled is next to nothing."""

from collections.abc import Awaitable, Callable
from uuid import uuid4

from support.postgres import Database, PostgresServer

_OURS = "relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema$)')"

_TABLES = f"SELECT oid::regclass FROM pg_class WHERE {_OURS} AND relkind = 'r' ORDER BY oid"

# Whatever a test may have done to a database other than to its rows. Copies of one template have the same identifiers.
SHAPE = f"""
SELECT md5(string_agg(part, E'\\n' ORDER BY part)) FROM (
    SELECT format('%s %s %s %s', oid, relname, relkind, reloptions) AS part FROM pg_class WHERE {_OURS}
    UNION ALL SELECT format('%s %s %s %s %s', attrelid, attname, atttypid, attnotnull, attisdropped)
        FROM pg_attribute WHERE attrelid IN (SELECT oid FROM pg_class WHERE {_OURS})
    UNION ALL SELECT format('%s %s', oid, pg_get_expr(adbin, adrelid)) FROM pg_attrdef
    UNION ALL SELECT format('%s %s', oid, pg_get_constraintdef(oid)) FROM pg_constraint WHERE oid >= 16384
    UNION ALL SELECT format('%s %s', indexrelid, indisvalid) FROM pg_index WHERE indrelid >= 16384
    UNION ALL SELECT format('%s %s', oid, tgenabled) FROM pg_trigger
    UNION ALL SELECT format('%s %s', oid, md5(prosrc)) FROM pg_proc WHERE oid >= 16384
    UNION ALL SELECT format('%s %s', oid, nspname) FROM pg_namespace WHERE oid >= 16384 AND nspname !~ '^pg_'
    UNION ALL SELECT format('%s %s', setrole, setconfig) FROM pg_db_role_setting
        WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
) AS parts;
"""

# Tables that hold something, at once, so that none of them is in the way of another.
_EMPTY = f"""
DO $$
DECLARE
    name regclass;
    holds boolean;
    names text := '';
BEGIN
    FOR name IN {_TABLES} LOOP
        EXECUTE 'SELECT EXISTS (SELECT FROM ' || name || ')' INTO holds;
        IF holds THEN names := names || ', ' || name; END IF;
    END LOOP;
    IF names <> '' THEN
        EXECUTE 'TRUNCATE ' || substr(names, 3) || ' CASCADE';
    END IF;
    PERFORM setval(oid, 1, false) FROM pg_class WHERE {_OURS} AND relkind = 'S';
END $$;
"""

_TAKEN_FROM_ALL = """
DO $$ BEGIN PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{old}'; END $$;
ALTER DATABASE {old} RENAME TO {new};
\\connect {new}
"""


class LentDatabases:
    """Copies of one template, cleaned when they are lent again.

    Not when they are given back: a process of the test before may still write then. Each loan has another name, so
    that whoever comes back late finds nothing. A copy whose tables, functions or settings are no longer the
    template's is dropped.
    """

    def __init__(self, server: PostgresServer, key: str, prepare: Callable[[Database], Awaitable[None]]) -> None:
        """`prepare` makes the template of this `key`, once, as for `PostgresServer.template`."""
        self._server = server
        self._template = server.template(key, prepare)
        template = Database(server, self._template)
        self._shape = template.psql(SHAPE)
        self._rows = "".join(_copied(template, table) for table in template.psql(_TABLES + ";").splitlines())
        self._free: list[Database] = []

    def lend(self) -> Database:
        while self._free:
            used = self._free.pop()
            clean = self._cleaned(used)
            if clean is not None:
                return clean
            self._server.drop_database(used)
        return self._server.create_database(self._template)

    def give_back(self, database: Database) -> None:
        self._free.append(database)

    def _cleaned(self, used: Database) -> Database | None:
        clean = Database(self._server, f"t_{uuid4().hex[:12]}")
        script = _TAKEN_FROM_ALL.format(old=used.name, new=clean.name) + SHAPE
        try:
            if self._server.psql(script) != self._shape:
                self._server.drop_database(clean)
                return None
            clean.psql(_EMPTY + self._rows)
        except RuntimeError:
            self._server.drop_database(clean)
            return None
        return clean


def _copied(template: Database, table: str) -> str:
    """SQL that puts the template's own rows of `table` back; nothing where it has none."""
    rows = template.psql(f"COPY {table} TO STDOUT;")
    return f"COPY {table} FROM STDIN;\n{rows}\n\\.\n" if rows else ""
