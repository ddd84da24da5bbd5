#!/usr/bin/env bash
# Makes .venv (with omni and omni-daemon in it), .tools/bin (wireguard-go) and .tools/prometheus: what is missing or changed.
# With --bench also Debian's other tunnels, to measure beside. With --fuzz also .tools/bin/cargo-fuzz. With --soak all of
# these, and what virtual machines need: qemu, and guest kernels in .tools/guest-kernels.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly REPO=$PWD
readonly STAMPS=.venv/.stamps
readonly MINIMUM_RUST=1.87
readonly CARGO_FUZZ=0.13.2
# The first whose eBPF code the kernel's verifier accepts, and the newest that native/reflex/build.rs looks for.
readonly MINIMUM_CLANG=16 MAXIMUM_CLANG=20
# Where rustup, Go and Debian put programs that a plain user's or a bare root's PATH may lack.
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin:/usr/local/go/bin:/usr/sbin:/sbin"

# Debian package by a command that it brings.
declare -A PACKAGES=(
    [bpftool]=bpftool
    [cc]="gcc libc6-dev"
    [conntrack]=conntrack
    [ethtool]=ethtool
    [faketime]=faketime
    [git]=git
    [ip]=iproute2
    [iperf3]=iperf3
    [miniupnpd]=miniupnpd-nftables
    [nft]=nftables
    [ping]=iputils-ping
    [ps]=procps
    [rsync]=rsync
    [shellcheck]=shellcheck
    [sockperf]=sockperf
    [ssh]=openssh-client
    [sshd]=openssh-server
    [strace]=strace
    [systemd-analyze]=systemd
    [tcpdump]=tcpdump
    [tshark]=tshark
    [wg]=wireguard-tools
)
readonly GUEST_KERNELS=.tools/guest-kernels
# Kernel by the Debian release that has it.
declare -rA GUEST_RELEASES=([5.10]=bullseye [6.1]=bookworm [6.12]=bookworm)
declare -rA BENCH_PACKAGES=(
    [fastd]=fastd
    [nebula]=nebula
    [tincd]=tinc
)
declare -rA SOAK_PACKAGES=(
    [busybox]=busybox-static
    [cpio]=cpio
    [debootstrap]=debootstrap
    [depmod]=kmod
    [podman]="podman runc netavark aardvark-dns buildah iptables"
    [podman-compose]=podman-compose
    [qemu-system-x86_64]=qemu-system-x86
)

main() {
    local command
    # One at a time: two shells may run make in the same folder.
    mkdir -p .tools
    exec 9>.tools/setup.lock
    ! has flock || flock 9
    if [[ ${1:-} == --bench || ${1:-} == --soak ]]; then
        for command in "${!BENCH_PACKAGES[@]}"; do PACKAGES[$command]=${BENCH_PACKAGES[$command]}; done
    fi
    if [[ ${1:-} == --soak ]]; then
        for command in "${!SOAK_PACKAGES[@]}"; do PACKAGES[$command]=${SOAK_PACKAGES[$command]}; done
    fi
    install_packages
    check_rust
    make_venv
    install_locked
    build_package
    # Some environments forbid Python to keep what it compiled: every start of a command would compile all of it again.
    .venv/bin/python -m compileall -q src/omninervous
    install_wireguard_go
    fetch_prometheus
    [[ ${1:-} != --soak && ${1:-} != --fuzz ]] || install_cargo_fuzz
    [[ ${1:-} != --soak ]] || fetch_guest_kernels
    say "ready: .venv/bin/omni, .venv/bin/omni-daemon"
}

say() { printf 'setup: %s\n' "$*"; }

die() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

install_packages() {
    local command missing=()
    for command in "${!PACKAGES[@]}"; do
        # shellcheck disable=SC2206  # several packages may stand behind one command
        has "$command" || missing+=(${PACKAGES[$command]})
    done
    has_clang || missing+=("$(clang_package)")
    [[ -e /usr/include/bpf/bpf_helpers.h ]] || missing+=(libbpf-dev)
    [[ ${#missing[@]} -gt 0 ]] && install_debian "${missing[@]}"
    return 0
}

has_clang() {
    local version
    for ((version = MINIMUM_CLANG; version <= MAXIMUM_CLANG; version++)); do
        ! has "clang-$version" || return 0
    done
    has clang && at_least "$(clang -dumpversion)" "$MINIMUM_CLANG"
}

# The oldest that this release of Debian has and that does.
clang_package() {
    local version
    [[ $EUID -ne 0 ]] || ! has apt-get || apt-get update -qq </dev/null >/dev/null 2>&1 || true
    for ((version = MINIMUM_CLANG; version < MAXIMUM_CLANG; version++)); do
        ! apt-cache show "clang-$version" >/dev/null 2>&1 || break
    done
    echo "clang-$version"
}

install_debian() {
    has apt-get || die "missing: $*. There is no apt-get here: install them with this system's package manager, then run make setup again."
    [[ $EUID -eq 0 ]] || die "missing Debian packages. As root, run: apt-get install --no-install-recommends $*"
    say "installing $*"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq </dev/null || die "apt-get update failed: check the package sources and the network."
    apt-get install -qq -y --no-install-recommends "$@" </dev/null >/dev/null \
        || die "apt-get could not install: $*. Try it by hand to see why."
}

check_rust() {
    local tool version
    for tool in cargo rustc; do
        has "$tool" || die "no $tool found. Install Rust $MINIMUM_RUST or newer with rustup (Debian 12's own is too old)."
    done
    version=$(rustc --version | awk '{print $2}')
    at_least "$version" "$MINIMUM_RUST" || die "rustc is $version. Install Rust $MINIMUM_RUST or newer: rustup update stable."
}

at_least() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]; }

make_venv() {
    # A .venv copied here from another folder has scripts that run the other folder's Python.
    if [[ -x .venv/bin/python ]] && [[ $(cat "$STAMPS/place" 2>/dev/null) == "$REPO" ]] && .venv/bin/python -c '' 2>/dev/null; then
        return 0
    fi
    local python
    python=$(find_python)
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        install_debian "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    fi
    say "making .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv || die "$python -m venv failed: install its venv module (Debian: python3-venv)."
    mkdir -p "$STAMPS"
    echo "$REPO" >"$STAMPS/place"
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if has "$candidate" && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return 0
        fi
    done
    die "no Python 3.11 or newer found. Install one (Debian 12: apt-get install --no-install-recommends python3 python3-venv) or name it: make setup PYTHON=/path/to/python3.11"
}

install_locked() {
    local want
    want=$(sha256sum requirements/dev.txt)
    fresh dependencies "$want" && return 0
    say "installing the locked Python packages"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps --require-hashes \
        -r requirements/dev.txt || die "pip could not install requirements/dev.txt: see its words above."
    record dependencies "$want"
}

build_package() {
    local want
    # shellcheck disable=SC2046  # file names without blanks
    want=$(package_metadata && sha256sum requirements/dev.txt native/Cargo.lock $(find native bpf -path native/target -prune -o \
        \( -name '*.rs' -o -name 'Cargo.toml' -o -name '*.[ch]' \) -print | LC_ALL=C sort))
    # shellcheck disable=SC2144  # one library at most
    [[ -x .venv/bin/omni && -f src/omninervous/_native.abi3.so ]] && fresh package "$want" && return 0
    say "building the native parts"
    # No isolation: the locked maturin builds, and nothing outside the lock is fetched for Python.
    PATH="$REPO/.venv/bin:$PATH" .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
        --no-deps --no-build-isolation --editable . || die "the native build failed: see cargo's words above."
    record package "$want"
}

# The parts of pyproject.toml that the build reads: a linter's setting rebuilds nothing.
package_metadata() {
    .venv/bin/python -c 'import tomllib
with open("pyproject.toml", "rb") as file:
    document = tomllib.load(file)
print(document["build-system"], document["project"], document["tool"]["maturin"])'
}

install_cargo_fuzz() {
    [[ $(.tools/bin/cargo-fuzz --version 2>/dev/null) == *" $CARGO_FUZZ" ]] && return 0
    has c++ || install_debian g++
    say "building cargo-fuzz $CARGO_FUZZ"
    cargo install --quiet --locked --force --root .tools --version "$CARGO_FUZZ" cargo-fuzz \
        || die "cargo could not install cargo-fuzz $CARGO_FUZZ: see the lines above."
}

# wireguard-go is the outside witness that `make test` talks to; nothing else needs it, so setup goes on without.
install_wireguard_go() {
    [[ -x .tools/bin/wireguard ]] && return 0
    if ! has go; then
        say "no Go found: make test will fail until Go 1.23 or newer is installed (it builds wireguard-go to talk to)."
        return 0
    fi
    say "building wireguard-go with $(go version | awk '{print $3}')"
    GOBIN="$REPO/.tools/bin" GOFLAGS="" go install golang.zx2c4.com/wireguard@latest </dev/null \
        || say "wireguard-go could not be built (see Go's words above): make test will fail until make setup gets it."
}

# Prometheus and promtool, which tests scrape with: unpacked, not installed, for the package would start a service.
fetch_prometheus() {
    [[ -x .tools/prometheus/usr/bin/prometheus ]] && return 0
    if ! has apt-get || [[ $EUID -ne 0 ]]; then
        say "no .tools/prometheus: make test will fail until make setup runs as root on a Debian-like system."
        return 0
    fi
    say "fetching prometheus"
    apt-get update -qq </dev/null || die "apt-get update failed: check the package sources and the network."
    unpack_debian prometheus .tools/prometheus
}

# Unpack a Debian package into a folder.
unpack_debian() {
    local scratch
    scratch=$(mktemp -d)
    (cd "$scratch" && apt-get download -qq "$1" </dev/null 2>/dev/null) || die "apt-get could not download $1."
    dpkg -x "$scratch"/*.deb "$scratch/tree"
    rm -rf "$2"
    mkdir -p .tools
    mv "$scratch/tree" "$2"
    rm -rf "$scratch"
}

# Kernels for the virtual machines: unpacked, not installed.
fetch_guest_kernels() {
    local version
    [[ $(uname -m) == x86_64 ]] || die "the virtual machines of the soak tests need an x86_64 host."
    has apt-get || die "the guest kernels come from Debian's packages and there is no apt-get here."
    for version in "${!GUEST_RELEASES[@]}"; do
        [[ -d $GUEST_KERNELS/$version/boot ]] || fetch_guest_kernel "$version" "${GUEST_RELEASES[$version]}"
    done
}

# Lists and cache of its own: this machine's sources for another release are nobody else's business.
fetch_guest_kernel() {
    local version=$1 release=$2 scratch package options
    scratch=$(mktemp -d)
    mkdir -p "$scratch"/{sources,lists/partial,cache/archives/partial,tree}
    sed -E "/^#/d; s/(bookworm|trixie)-(updates|backports)//; s/bookworm|trixie/$release/" \
        /etc/apt/sources.list.d/*.sources >"$scratch/sources/guest.sources" 2>/dev/null || true
    sed -E "/^#/d; s/bookworm|trixie/$release/" /etc/apt/sources.list >"$scratch/sources/guest.list" 2>/dev/null || true
    options=(-o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$scratch/sources"
        -o "Dir::State::Lists=$scratch/lists" -o "Dir::Cache=$scratch/cache")
    apt-get "${options[@]}" update -qq </dev/null || die "apt-get update for Debian $release failed: check the package sources and the network."
    package=$(apt-cache "${options[@]}" pkgnames "linux-image-$version." | grep -E -- '-cloud-amd64$' | sort -V | tail -n 1) || true
    [[ -n $package ]] || die "no linux-image-$version.*-cloud-amd64 among the packages of Debian $release: the soak tests need it."
    say "fetching $package"
    (cd "$scratch" && apt-get "${options[@]}" download -qq "$package" </dev/null 2>/dev/null) || die "apt-get could not download $package."
    dpkg -x "$scratch"/*.deb "$scratch/tree"
    mkdir -p "$GUEST_KERNELS"
    rm -rf "${GUEST_KERNELS:?}/$version"
    mv "$scratch/tree" "$GUEST_KERNELS/$version"
    rm -rf "$scratch"
}

fresh() { [[ $(cat "$STAMPS/$1" 2>/dev/null) == "$2" ]]; }

record() { printf '%s\n' "$2" >"$STAMPS/$1"; }

main "$@"
