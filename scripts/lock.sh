#!/usr/bin/env bash
# Writes the hash-locked requirements/*.txt and native/Cargo.lock anew. Only here are new versions taken.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly TOOLS=.tools/lock

# A venv of its own: pip-tools brings pip and setuptools along, which .venv does not lock.
[[ -x $TOOLS/bin/pip-compile ]] || {
    .venv/bin/python -m venv "$TOOLS"
    "$TOOLS/bin/python" -m pip install --quiet --disable-pip-version-check pip-tools
}
cd requirements
for name in runtime dev zig; do
    echo "lock: requirements/$name.txt"
    # The committed files name no package index and no machine of ours.
    "../$TOOLS/bin/pip-compile" --quiet --upgrade --generate-hashes --strip-extras --no-header \
        --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file "$name.txt" "$name.in"
done
cd ..
echo "lock: native/Cargo.lock"
cargo update --manifest-path native/Cargo.toml
