#!/usr/bin/env bash
# A Nucleus and two edges on three machines over ssh, measured and taken away again:
#   cloud_test.sh --nucleus HOST --node-a HOST --node-b HOST --secret TEXT
# --secret-file or OMNI_SECRET keep the secret out of the shell's history. More: `omni cloud test --help`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/omni.sh"
make -C "$TREE" wheel >&2
run_omni cloud test --dist "$TREE/dist" "$@"
