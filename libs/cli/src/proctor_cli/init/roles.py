"""The SQL that gives each service its own role and schemas in PostgreSQL. No I/O."""

DATABASE = "proctor"
SCHEMAS = {"proctor_controller": ("control",), "proctor_api": ("catalog", "access")}
"""Role: the schemas it owns. Each table is written by one service."""


def roles_sql(passwords: dict[str, str]) -> list[str]:
    """Statements for a superuser in the database ``proctor``; they can be repeated.

    ``passwords``: one for each role of SCHEMAS, letters and digits only. Raises ValueError for others.
    """
    statements = []
    for role, schemas in SCHEMAS.items():
        password = passwords[role]
        if not password.isalnum():
            raise ValueError(f"the password of {role} must be letters and digits")
        statements += [
            f"DO $$ BEGIN CREATE ROLE {role} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
            f"ALTER ROLE {role} WITH LOGIN PASSWORD '{password}'",
            f"GRANT CONNECT ON DATABASE {DATABASE} TO {role}",
        ]
        statements += [f"CREATE SCHEMA IF NOT EXISTS {schema} AUTHORIZATION {role}" for schema in schemas]
        statements.append(f"ALTER ROLE {role} IN DATABASE {DATABASE} SET search_path = {', '.join(schemas)}")
    return [
        f"REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC",
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        *statements,
    ]
