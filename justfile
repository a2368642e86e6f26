# Recipes for people who work on Proctor. `./justw RECIPE` makes the environment first; with just at hand
# `just RECIPE` does the same.

set shell := ["sh", "-euc"]
set positional-arguments

root := justfile_directory()
bin := root / ".venv/bin"
export PATH := bin + ":" + env("PATH")

# List the recipes
[private]
default:
    @just --justfile '{{ justfile() }}' --list --unsorted

[private]
ready:
    @[ -n "${JUSTW_READY:-}" ] || '{{ root }}/justw' --ensure

# The local system with a throw-away data directory: runs examples/smoke.yaml, shows its log live and its verdict
demo *ARGS:
    @exec '{{ root }}/justw' demo "$@"

# The local system until Ctrl-C; everything else goes to `proctor up` unchanged
up *ARGS:
    @exec '{{ root }}/justw' up "$@"

# A test that fails is tried once more and then named as RERUN: whoever sees one there mends it.
# All that must hold before a change lands: lint, types, imports, every test; skipped tests are listed by name
test *ARGS: lint types imports
    pytest -n auto --dist worksteal --reruns 1 -raR "$@"

# Style and common faults
lint: ready
    ruff check .
    ruff format --check .

# Static types, strict
types: ready
    mypy libs/*/src services/*/src tests bench

# The layers of CONTRIBUTING.md
imports: ready
    lint-imports

# Of the next three each takes options for its folder (-k chunker), or paths instead of it, which run in one process.
# Tests without any server
unit *ARGS: ready
    @'{{ root }}/.ci/pytest' tests/unit "$@"

# Tests of single parts against real NATS, PostgreSQL and SSH
integration *ARGS: ready
    @'{{ root }}/.ci/pytest' 'tests/integration -n auto --dist worksteal' "$@"

# Tests of the whole system as processes
e2e *ARGS: ready
    @'{{ root }}/.ci/pytest' tests/e2e "$@"

# What the tests reach, by file, in the processes that they start too; no part of `test`
coverage *ARGS: ready
    rm -rf .coverage
    coverage run -m pytest -n auto --dist worksteal "$@" || true
    coverage combine -q
    coverage report

# Format and apply the safe fixes of lint
fmt: ready
    ruff check --fix .
    ruff format .

# Long suites in full, of which `test` runs a fixed sample
soak *ARGS: ready
    pytest --soak --timeout 3600 "$@"

# The volume pool on a real OpenStack: the one that OS_* or clouds.yaml (with OS_CLOUD) names; docs/openstack.md
openstack *ARGS: ready
    pytest --openstack -m openstack --timeout 600 -rs "$@"

# The figures of bench/RESULTS.md, each beside its floor
bench *ARGS: ready
    python -m bench "$@"

# Pin again: requirements.lock (the members and the dev group) and requirements-tools.lock (uv, just)
lock *ARGS: ready
    '{{ root }}/.ci/lock' "$@"
