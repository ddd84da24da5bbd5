#!/usr/bin/env bash
# What is too long for every run: the soak tests, the namespace tests SOAK_REPEATS times, property tests with many
# examples, long fuzzing. Goes on after a failure; the log stays in soak-log/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[[ $EUID -eq 0 ]] || {
    echo "soak: needs root (network namespaces): sudo make soak" >&2
    exit 1
}
mkdir -p soak-log
LOG="soak-log/$(date -u +%Y%m%dT%H%M%SZ)-$$.log"
readonly LOG
failed=()

stage() {
    local name=$1 begin=$SECONDS
    shift
    printf '== %s: %s\n' "$name" "$*"
    if "$@" </dev/null; then
        printf '== %s: ok, %d s\n' "$name" $((SECONDS - begin))
    else
        printf '== %s: FAILED with status %d, %d s\n' "$name" $? $((SECONDS - begin))
        failed+=("$name")
    fi
}

run() {
    local pytest=(.venv/bin/python -m pytest -v) repeat
    printf '== %s, kernel %s, commit %s\n' "$(date -u)" "$(uname -r)" "$(git rev-parse --short HEAD 2>/dev/null || echo none)"
    stage soak "${pytest[@]}" -m soak tests
    for ((repeat = 1; repeat <= ${SOAK_REPEATS:-10}; repeat++)); do
        stage "netns $repeat" "${pytest[@]}" -n "${NETNS_JOBS:-4}" tests/netns
    done
    stage property "${pytest[@]}" -n 2 --timeout 3600 --hypothesis-profile long tests/property
    stage fuzz env FUZZ_SECONDS="${SOAK_FUZZ_SECONDS:-900}" scripts/fuzz.sh
    printf '== %d stages failed%s\n' ${#failed[@]} "${failed[*]:+: ${failed[*]}}"
    [[ ${#failed[@]} -eq 0 ]]
}

echo "soak: log in $LOG"
run 2>&1 | tee "$LOG"
