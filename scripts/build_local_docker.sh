#!/usr/bin/env bash
# Builds the images omninervous-edge and omninervous-nucleus from this tree (`make images`), with docker or else podman. BASE names another base.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib/engine.sh
engine=$(container_engine)
make wheel
for target in nucleus edge; do
    # Health checks are docker's own format; it is podman's only on request.
    BUILDAH_FORMAT=docker "$engine" build --target "$target" ${BASE:+--build-arg "BASE=$BASE"} \
        --tag "omninervous-$target" --file contrib/containers/Dockerfile .
done
