"""Run by Alembic for every service's chain; connection and schema come from :mod:`proctor_common.pg.migrate`."""

from alembic import context

from proctor_common.pg.migrate import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    version_table_schema=context.config.attributes["schema"],
    transactional_ddl=True,
)
# The caller's transaction holds the lock, and applies all revisions or none.
context.run_migrations()
