#!/usr/bin/env bash
# Makes dist/: the wheel, the source distribution, the locked requirements.txt, the bill of materials, SHA256SUMS.
#   wheel.sh                  for TARGET (x86_64-unknown-linux-gnu), manylinux2014, linked by zig, from any Linux
#   wheel.sh --this-machine   for the C library of this machine, with its own linker; quicker
# DIST names another directory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly DIST=${DIST:-dist}
readonly TARGET=${TARGET:-x86_64-unknown-linux-gnu}
readonly ZIG=.tools/zig
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

main() {
    local version bom options
    mkdir -p "$DIST"
    rm -f -- "$DIST"/omninervous-*
    version=$(.venv/bin/python -c 'import tomllib; print(tomllib.load(open("pyproject.toml", "rb"))["project"]["version"])')
    bom=$DIST/omninervous-$version.cdx.json
    .venv/bin/python scripts/sbom.py "$bom"
    options=(--release --locked --quiet --out "$DIST" --sbom-include "$bom")
    if [[ ${1:-} == --this-machine ]]; then
        .venv/bin/maturin build "${options[@]}"
    else
        install_zig
        PATH="$PWD/$ZIG/bin:$PATH" .venv/bin/maturin build "${options[@]}" --zig --compatibility manylinux2014 --target "$TARGET"
    fi
    .venv/bin/maturin sdist --out "$DIST"
    cp requirements/runtime.txt "$DIST/requirements.txt"
    (cd "$DIST" && sha256sum -- omninervous-* requirements.txt >SHA256SUMS)
    printf 'wheel: %s\n' "$DIST"/omninervous-* >&2
}

# In a venv of its own: 300 MB that only releases need.
install_zig() {
    local want
    want=$(sha256sum requirements/zig.txt)
    [[ $(cat "$ZIG/lock" 2>/dev/null) != "$want" ]] || return 0
    rm -rf "$ZIG"
    .venv/bin/python -m venv "$ZIG"
    "$ZIG/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps --require-hashes -r requirements/zig.txt
    printf '#!/bin/sh\nexec "%s" -m ziglang "$@"\n' "$PWD/$ZIG/bin/python" >"$ZIG/bin/zig"
    chmod +x "$ZIG/bin/zig"
    echo "$want" >"$ZIG/lock"
}

main "$@"
