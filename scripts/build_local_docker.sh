#!/usr/bin/env bash
# Builds the images omninervous-edge and omninervous-nucleus with docker, or else podman.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec make images
