#!/usr/bin/env bash
# The Linux amd64 wheel in an amd64 container, slowly where that means emulation. build_cross_fast.sh needs no container.
# IMAGE names one that has cargo, Python 3.11 with venv, and make.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib/engine.sh
engine=$(container_engine)
mkdir -p dist
exec "$engine" run --rm --platform linux/amd64 --volume "$PWD:/source:ro" --volume "$PWD/dist:/dist" \
    "${IMAGE:-docker.io/library/rust:1-bookworm}" bash -euc '
        apt-get update -qq && apt-get install -qq -y --no-install-recommends python3 python3-venv rsync >/dev/null
        rsync -a --exclude /.venv --exclude /.tools --exclude /native/target --exclude /dist --exclude "*.so" /source/ /build/
        make -C /build setup && DIST=/dist /build/scripts/wheel.sh --this-machine'
