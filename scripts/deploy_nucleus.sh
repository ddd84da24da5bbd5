#!/usr/bin/env bash
# Installs OmniNervous on a machine and starts a Nucleus there that goes on: deploy_nucleus.sh USER@HOST[:/DIR]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/omni.sh"
make -C "$TREE" wheel >&2
run_omni cloud nucleus --dist "$TREE/dist" "$@"
