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
        transfer | keyupdate | multiconnect | resumption | zerortt | migration) ;;
        retry) common+=(--enable-retry) ;;
        *) exit 127 ;;
    esac
    echo ready
    exec "$bin/tquic_server" "${common[@]}" --cert "$CERT" --key "$KEY" --root "$WWW" --listen "$LISTEN"
fi
read -ra urls <<<"$REQUESTS"
# It does not verify certificates, and exits with 0 whatever becomes of requests.
get() {
    local out
    out=$("$bin/tquic_client" "${common[@]}" --alpn "${ALPN:-hq-interop}" --dump-dir "$DOWNLOADS" \
        --max-requests-per-conn "$#" --max-concurrent-requests "$#" --total-requests-per-thread "$#" "${extra[@]}" "$@")
    echo "$out"
    [[ $out == *"finish $#, success $#"* ]]
}
extra=()
session=$DOWNLOADS/../tquic.session
# It takes a stream that was reset for a success, and knows no protocols of other names.
[[ ${ALPN:-hq-interop} == hq-interop ]] || exit 127
case $TESTCASE in
    transfer | retry) get "${urls[@]}" ;;
    multiconnect)
        for url in "${urls[@]}"; do get "$url" || exit 1; done
        ;;
    resumption | zerortt)
        extra=(--session-file "$session")
        get "${urls[0]}" || exit 1
        [[ $TESTCASE == resumption ]] || extra+=(--enable-early-data)
        get "${urls[@]:1}"
        ;;
    *) exit 127 ;;
esac
