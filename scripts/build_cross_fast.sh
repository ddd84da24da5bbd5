#!/usr/bin/env bash
# The Linux amd64 wheel from any Linux, without emulation: zig is compiler and linker. Result in dist/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec make wheel
