#!/bin/bash
# hq-interop over tquic's own client and server. See ../README.md. Usage: peer.sh DIRECTORY_OF_THE_PROGRAMS
set -eu
bin=$1
mtu=${MTU:-1500}
common=(--log-level "${TQUIC_LOG:-warn}" --recv-udp-payload-size "$((mtu - 48))" --idle-timeout 30000)
[[ -z ${SSLKEYLOGFILE:-} ]] || common+=(--keylog-file "$SSLKEYLOGFILE")
[[ -z ${QLOGDIR:-} ]] || common+=(--qlog-dir "$QLOGDIR")

if [[ $ROLE == server ]]; then
    case $TESTCASE in
        transfer | multiconnect | resumption | zerortt | migration) ;;
        retry) common+=(--enable-retry) ;;
        *) exit 127 ;;
    esac
    echo ready
    exec "$bin/tquic_server" "${common[@]}" --cert "$CERT" --key "$KEY" --root "$WWW" --listen "$LISTEN"
fi
case $TESTCASE in
    transfer | retry) ;;
    *) exit 127 ;;
esac
read -ra urls <<<"$REQUESTS"
exec "$bin/tquic_client" "${common[@]}" --alpn hq-interop --ca "$CA" --dump-dir "$DOWNLOADS" "${urls[@]}"
