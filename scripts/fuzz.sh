#!/usr/bin/env bash
# Runs every fuzz target in tests/fuzz and native/fuzz for FUZZ_SECONDS (60) each; all of them, even after one has failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
shopt -s nullglob

targets=(tests/fuzz/fuzz_*.py)
[[ ${#targets[@]} -gt 0 ]] || {
    echo "fuzz: tests/fuzz holds no fuzz_*.py" >&2
    exit 1
}
failed=()
for target in "${targets[@]}"; do
    module=${target%.py}
    echo "fuzz: $target for ${FUZZ_SECONDS:-60} s"
    # As a module: the targets may import what the tests share.
    .venv/bin/python -m "${module//\//.}" --seconds "${FUZZ_SECONDS:-60}" || failed+=("$target")
done
# The Rust engine by libFuzzer, guided by coverage. No sanitizer: safe code alone is built, with overflow checks.
for target in native/fuzz/fuzz_targets/*.rs; do
    name=$(basename "$target" .rs)
    [[ $name == common ]] && continue
    targets+=("$target")
    echo "fuzz: $target for ${FUZZ_SECONDS:-60} s"
    PATH="$PWD/.tools/bin:$PATH" cargo fuzz run "$name" --fuzz-dir native/fuzz --sanitizer none -- \
        -max_total_time="${FUZZ_SECONDS:-60}" -max_len=20000 -verbosity=0 -print_final_stats=1 || failed+=("$target")
done
# The same crate with inputs that are whole frames; twenty cases of each kind take about a second.
echo "fuzz: native/engine/tests/fuzz.rs for about ${FUZZ_SECONDS:-60} s"
targets+=(native/engine/tests/fuzz.rs)
PROPTEST_CASES=$((${FUZZ_SECONDS:-60} * 20)) cargo --locked test --quiet --manifest-path native/Cargo.toml \
    --package omninervous-engine --test fuzz || failed+=(native/engine/tests/fuzz.rs)
echo "fuzz: $((${#targets[@]} - ${#failed[@]})) passed, ${#failed[@]} failed ${failed[*]}"
[[ ${#failed[@]} -eq 0 ]]
