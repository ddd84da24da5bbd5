# shellcheck shell=bash
# Sourced by the scripts beside: the container engine that runs here. ENGINE names another one.

container_engine() {
    local candidate
    for candidate in ${ENGINE:-docker podman}; do
        if command -v "$candidate" >/dev/null && "$candidate" info >/dev/null 2>&1; then
            echo "$candidate"
            return 0
        fi
    done
    echo "$(basename "$0"): neither docker nor podman runs here: install one, or start its daemon" >&2
    return 1
}
