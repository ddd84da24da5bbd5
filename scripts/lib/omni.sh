# shellcheck shell=bash
# Sourced by the scripts beside: runs `omni` of this tree, made first if need be, in the caller's directory.
TREE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

run_omni() {
    make -C "$TREE" setup >&2
    exec "$TREE/.venv/bin/omni" "$@"
}
