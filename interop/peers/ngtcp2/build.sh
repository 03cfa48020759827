#!/bin/bash
# Builds the peer with Debian's ngtcp2. Usage: build.sh OUTPUT
set -eu
cd "$(dirname "$0")"
exec cc -std=gnu11 -O2 -Wall -Wextra -Wno-unused-parameter peer.c -o "$1" \
    -lngtcp2_crypto_gnutls -lngtcp2 -lgnutls
