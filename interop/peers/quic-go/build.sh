#!/bin/bash
# Builds the peer with Debian's quic-go. Usage: build.sh OUTPUT
# The program has to be in quic-go's tree because it uses its internal packages.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=$1
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
debian=/usr/share/gocode
package=github.com/lucas-clemente/quic-go/interop/gannet
mkdir -p "$tree/src/github.com/lucas-clemente"
cp -r "$debian/src/github.com/lucas-clemente/quic-go" "$tree/src/github.com/lucas-clemente/"
mkdir -p "$tree/src/$package"
cp "$here/main.go" "$tree/src/$package/"
cd "$tree/src/$package"
GO111MODULE=off GOPATH=$tree:$debian GOFLAGS=-p=1 GOCACHE=${GOCACHE:-$tree/cache} go build -o "$out" .
