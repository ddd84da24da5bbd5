#!/usr/bin/env bash
# Builds the images omninervous-edge and omninervous-nucleus from this tree, with docker or else podman. BASE names another base.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
engine=$(command -v docker || command -v podman) || {
    echo "build_local_docker: neither docker nor podman is here: install one" >&2
    exit 1
}
make wheel
for target in nucleus edge; do
    "$engine" build --target "$target" ${BASE:+--build-arg "BASE=$BASE"} \
        --tag "omninervous-$target" --file contrib/containers/Dockerfile .
done
