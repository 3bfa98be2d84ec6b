#!/bin/sh
# Builds the foreign programs that the interop tests run, into the directory
# given as the first argument. Go's own caches make a second build fast.
set -eu

bin=$1
here=$(cd "$(dirname "$0")" && pwd)
GO=${GO:-go}
export CGO_ENABLED=0 GOTOOLCHAIN=local GOWORK=off

if ! command -v "$GO" >/dev/null 2>&1; then
    echo "interop/build.sh: Go (1.26.6 or newer) is not installed;" \
        "the interop tests need it" >&2
    exit 1
fi
mkdir -p "$bin"

echo "building headscale" >&2
(cd "$here/headscale" && "$GO" build -trimpath -o "$bin/" \
    github.com/juanfont/headscale/cmd/headscale)

echo "building tailscaled, tailscale, derper and the tsnet peer" >&2
(cd "$here/peer" && "$GO" build -trimpath -o "$bin/" \
    tailscale.com/cmd/tailscaled tailscale.com/cmd/tailscale \
    tailscale.com/cmd/derper && "$GO" build -trimpath -o "$bin/tsnet-peer" .)

# What Wireshark reads captures of the tailnet with.
install -m 644 "$(cd "$here/peer" && "$GO" list -m -f '{{.Dir}}' \
    tailscale.com)/feature/capture/dissector/ts-dissector.lua" "$bin/"

echo "building the wireguard-go peer" >&2
(cd "$here/wireguard" && "$GO" build -trimpath -o "$bin/wireguard-peer" .)
