"""What runs on the machines of `omni cloud`: POSIX shell scripts, and nothing that is not on every Linux.

Everything that is started there has its own run directory as working directory. That is how it is found again, also
by a later run: no pid file goes stale, no pid that was used again is mistaken.
"""

from __future__ import annotations

__all__ = ["ASK", "INSTALLED", "IPERF3_CLIENT", "PING", "PROBE", "START", "STOP", "UNINSTALL"]

_BEGIN = "set -eu\numask 077\n"

PROBE = (
    _BEGIN
    + """
python=
for name in python3 python3.14 python3.13 python3.12 python3.11; do
    if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$(command -v "$name")
        break
    fi
done
if [ -z "$python" ]; then
    echo "there is no Python 3.11 or newer: install it (Debian, Ubuntu: apt-get install python3)" >&2
    exit 1
fi
libc=$("$python" -c 'import platform; name, version = platform.libc_ver(); print(version if name == "glibc" else "")')
if [ "$(uname -s)" != Linux ] || [ -z "$libc" ]; then
    echo "it is no Linux with glibc ($(uname -s)): choose another machine" >&2
    exit 1
fi
tools=
for name in iperf3 ping rsync setsid timeout; do
    command -v "$name" >/dev/null && tools="$tools $name"
done
sudo=no
if [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; then sudo=yes; fi
echo "home=$HOME"
echo "uid=$(id -u)"
echo "machine=$(uname -m)"
echo "libc=$libc"
echo "python=$python"
echo "version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
echo "tools=$tools"
echo "sudo=$sudo"
"""
)
"""What the machine is; fails with the remedy if it will not do."""

INSTALLED = (
    _BEGIN
    + """
directory=$1 python=$2
mkdir -p "$directory/bin"
for pair in omni=omninervous.cli.omni omni-daemon=omninervous.cli.daemon; do
    command=$directory/bin/${pair%%=*}
    cat >"$command.new" <<END
#!/bin/sh
# Compiled already; what root writes here its owner could not remove.
export PYTHONDONTWRITEBYTECODE=1
PYTHONPATH='$directory/lib' exec '$python' -m ${pair#*=} "\\$@"
END
    chmod 755 "$command.new"
    mv -f "$command.new" "$command"
done
"$python" -m compileall -q "$directory/lib" >/dev/null || true
"$directory/bin/omni-daemon" --version
"""
)
"""DIR PYTHON: the two commands in DIR/bin, for what was copied to DIR/lib; the version that they print."""

UNINSTALL = (
    _BEGIN
    + """
directory=${1:?}
rm -rf "${directory:?}/lib" "${directory:?}/bin"
rmdir "$directory" 2>/dev/null || true
"""
)
"""DIR: an installation that came half-way."""

START = (
    _BEGIN
    + r"""
run=$1 log=$2 pattern=$3
shift 3
mkdir -p "$run"
cd "$run"
rm -f "$log"
# noclobber: nobody's link is followed in a directory that all may write to.
(set -C && : >"$log")
setsid "$@" </dev/null >>"$log" 2>&1 &
tries=150
while [ $tries -gt 0 ]; do
    if grep -q -e "$pattern" "$log"; then exit 0; fi
    if ! kill -0 $! 2>/dev/null; then break; fi
    sleep 0.1
    tries=$((tries - 1))
done
echo "$1 said no '$pattern'; its last words: $(tail -n 5 "$log")" >&2
exit 1
"""
)
"""RUN LOG PATTERN COMMAND...: started detached; done when its log holds the pattern."""

STOP = (
    _BEGIN
    + r"""
inside() {
    # shellcheck disable=SC2012  # one process for all; a find without -lname (busybox) cannot
    ls -ld /proc/[0-9]*/cwd 2>/dev/null | awk -v run="$run" '{
        at = index($0, " -> ")
        place = substr($0, at + 4)
        if (at && (place == run || place == run " (deleted)")) {
            path = substr($0, 1, at - 1)
            sub(".*/proc/", "", path)
            sub("/cwd$", "", path)
            print path
        }
    }'
}
signal() {
    for pid in $(inside); do kill "-$1" "$pid" 2>/dev/null || true; done
}
cd /
for run in "$@"; do
    for pid in $(inside); do
        echo "process $pid $(tr '\0' ' ' <"/proc/$pid/cmdline" | cut -c -60)"
    done
    signal TERM
    tries=50
    while [ -n "$(inside)" ] && [ $tries -gt 0 ]; do
        sleep 0.1
        tries=$((tries - 1))
    done
    signal KILL
    if [ -n "$(inside)" ]; then
        echo "these do not end: $(inside | tr '\n' ' ')" >&2
        exit 1
    fi
    if [ -e "$run" ]; then
        echo "directory $run"
        rm -rf "$run"
    fi
done
"""
)
"""RUN...: end everything in these run directories, and remove them; a line for each thing that there was."""

ASK = (
    _BEGIN
    + """
exec "$1/bin/omni" --state-dir "$2" "$3" --json
"""
)
"""DIR STATE-DIR COMMAND: what the daemon answers."""

PING = (
    _BEGIN
    + """
LC_ALL=C ping -n -q -c 10 -i 0.2 -W 2 "$1" || true
"""
)
"""TARGET: the summary of a ping, also if nothing comes back."""

IPERF3_CLIENT = (
    _BEGIN
    + """
timeout "$(($3 + 15))" iperf3 --client "$1" --port "$2" --time "$3" --connect-timeout 5000 --json || true
"""
)
"""TARGET PORT SECONDS: iperf3's report, which says itself what failed."""
