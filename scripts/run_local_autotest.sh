#!/usr/bin/env bash
# A whole cluster on this machine: clean up, start a Nucleus and two edges, check, tear down, print the table. Needs root.
# Options go to `omni autotest` (--json, --keep, --seconds N, ...).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/omni.sh"
run_omni autotest "$@"
