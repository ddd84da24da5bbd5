#!/bin/sh
# Writes wireguard_transcript.json anew from wireguard-go's own code. Needs go and, once, the Go module proxy.
# The ephemerals are random: every run gives other bytes, all of which must pass.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
version=${1:-v0.0.0-20260522210424-ecfc5a8d5446}
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
source=$(cd "$work" && go mod download -json "golang.zx2c4.com/wireguard@$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
cp -r "$source" "$work/wireguard"
chmod -R u+w "$work/wireguard"
rm "$work"/wireguard/device/*_test.go
cp "$here/wireguard_transcript_test.go" "$work/wireguard/device/"
cd "$work/wireguard"
WIREGUARD_VERSION=$version OUTPUT="$here/../wireguard_transcript.json" go test -count=1 -run TestPrintTranscripts ./device
