#!/bin/bash
# The entry point of an image for quic-interop-runner (https://github.com/quic-interop/quic-interop-runner).
#
# The port takes over the addresses and routes that the kernel has on the interface: the kernel would answer packets
# with "port unreachable" otherwise. Environment beside that of the runner, for runs without an image:
#   GANNET      the program [gannet]
#   GANNET_ROOT a prefix of /certs, /www, /downloads and /logs []
#   IFACE       the interface [eth0]
#   PORT        the UDP port of a server [443]
set -u

gannet=${GANNET:-gannet}
root=${GANNET_ROOT:-}
iface=${IFACE:-eth0}
role=${ROLE:-}
logs=$root/logs

# Whether this build of gannet has an option.
has() { "$gannet" "$1" --help 2>/dev/null | grep -q -e "$2"; }

# Options that a test case takes; anything else is not supported.
options=()
versions=v1
each=false
case $role:${TESTCASE:-} in
    *:handshake | *:transfer | *:longrtt | *:multiplexing | *:blackhole | *:ipv6 | *:goodput | *:crosstraffic) ;;
    *:ecn | *:transferloss | *:transfercorruption | *:rebind-port | *:rebind-addr) ;;
    *:handshakeloss | *:handshakecorruption | *:multiconnect)
        each=true
        # Handshakes take long.
        options+=(--idle-timeout 30s)
        ;;
    *:amplificationlimit) options+=(--idle-timeout 30s) ;;
    *:v2) versions=v2,v1 ;;
    *:chacha20) options+=(--suite chacha20) ;;
    client:retry | server:keyupdate | client:connectionmigration) ;;
    server:resumption) ;;
    *:zerortt) options+=(--early-data) ;;
    client:resumption) options+=(--resume) ;;
    client:keyupdate) options+=(--packets-per-key 300) ;;
    server:retry) options+=(--retry always) ;;
    *) exit 127 ;;
esac

# Where the simulator's scripts are, they set up routes and wait for the simulator.
[[ ! -x /setup.sh ]] || /setup.sh
[[ $role != client || ! -x /wait-for-it.sh ]] || /wait-for-it.sh sim:57832 -s -t 30

mkdir -p "$logs"
options+=(--versions "$versions")
port=(--port af-packet --set "iface=$iface" --set hugepages=never --dad off --idle yield)
mtu=$(cat "/sys/class/net/$iface/mtu") || exit 1
[[ $mtu == 1500 ]] || port+=(--set "mtu=$mtu")
while read -r address; do
    port+=(--addr "$address")
done < <(ip -o addr show dev "$iface" scope global | awk '{ print $4 }')
for family in -4 -6; do
    while read -r network via gateway _; do
        [[ $via == via ]] || continue
        if [[ $network == default ]]; then port+=(--gateway "$gateway"); else port+=(--route "$network=$gateway"); fi
    done < <(ip "$family" route show dev "$iface")
done
ip addr flush dev "$iface" scope global
# Without a link-local address, the kernel answers no neighbour solicitations.
ip -6 addr flush dev "$iface" 2>/dev/null

log=(--log-level debug)
[[ -z ${SSLKEYLOGFILE:-} ]] || log+=(--keylog "$SSLKEYLOGFILE")

if [[ $role == server ]]; then
    [[ -z ${QLOGDIR:-} ]] || ! has serve --qlog || log+=(--qlog "$QLOGDIR")
    # shellcheck disable=SC2206 # several words
    options+=(--listen "${PORT:-443}" --cert "$root/certs/cert.pem" --key "$root/certs/priv.key" --root "$root/www"
        ${SERVER_PARAMS:-})
    exec "$gannet" serve "${port[@]}" "${log[@]}" "${options[@]}" 2>>"$logs/server.log"
fi

[[ -z ${QLOGDIR:-} ]] || ! has get --qlog || log+=(--qlog "$QLOGDIR")
read -ra urls <<<"${REQUESTS:-}"
# shellcheck disable=SC2206 # several words
options+=(--ca "$root/certs/ca.pem" -o "$root/downloads" ${CLIENT_PARAMS:-})
get() { "$gannet" get "${port[@]}" "${log[@]}" "${options[@]}" "$@" 2>>"$logs/client.log"; }
if [[ $each == false ]]; then
    get "${urls[@]}"
    exit
fi
for url in "${urls[@]}"; do
    get "$url" || exit 1
done
