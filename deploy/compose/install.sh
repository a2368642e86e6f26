#!/bin/sh
# Install what is named (folders of members, packages) and what it needs, each at the version and with a hash of
# requirements.lock; what builds the members comes from there too.
# usage: install.sh WHAT…
set -eu
[ -z "${PIP_INDEX_URL:-}" ] || export UV_DEFAULT_INDEX="$PIP_INDEX_URL"
# A folder is one for uv only with a slash in front.
for what in "$@"; do
    shift
    case $what in */*) set -- "$@" "./$what" ;; *) set -- "$@" "$what" ;; esac
done
# What these need, at the lock's versions: members are left out, hashes are taken over from the lock.
printf '%s\n' "$@" | uv pip compile -q --no-header --no-annotate --generate-hashes --constraint requirements.lock \
    --no-emit-package proctor --no-emit-package proctor-common --no-emit-package proctor-api \
    --no-emit-package proctor-controller --no-emit-package proctor-agent --output-file needed.txt -
uv pip install --require-hashes -r needed.txt
for what in "$@"; do
    case $what in ./*) uv pip install --no-deps --build-constraints requirements.lock "${what%%\[*}" ;; esac
done
