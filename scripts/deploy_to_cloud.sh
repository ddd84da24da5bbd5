#!/usr/bin/env bash
# Copies this source tree to a machine by rsync, without what make makes: deploy_to_cloud.sh USER@HOST[:/DIR]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/omni.sh"
run_omni cloud sync --tree "$TREE" "$@"
