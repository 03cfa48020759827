#!/bin/sh
# A stand-in for `gannet`: same arguments, same output; files are copied instead of sent.
# FAKE selects what goes wrong.
set -eu
: "${FAKE:=nothing}" "${FAKE_STATE:?a directory for what the calls share}"

command=$1
shift
[ "$command" != perf ] || { command=perf-$1 && shift; }
echo "$command $*" >>"$FAKE_STATE/calls"
# A process that must not outlive its demo.
echo $$ >>"$FAKE_STATE/pids"

value() { # NAME ARGUMENTS...: the argument behind NAME
    name=$1
    shift
    while [ $# -gt 1 ]; do
        [ "$1" != "$name" ] || { echo "$2" && return; }
        shift
    done
    return 1
}

serve() {
    trap 'exit 0' TERM INT
    [ "$FAKE" != server-fails ] || { echo 'port memif: no such thing' >&2 && exit 4; }
    [ "$FAKE" = never-ready ] || echo "ready: $command"
    [ "$FAKE" != "$command-dies" ] || { sleep 0.3 && echo 'lost the port' >&2 && exit 5; }
    while :; do sleep 0.02; done
}

results() { # FILE
    echo "sha256: $(sha256sum "$1" | cut -d ' ' -f 1)"
    echo "bytes: $(wc -c <"$1")"
    echo 'seconds: 0.5
goodput_gbps: 7.25
handshake_us: 1500
bytes_copied: 0'
}

case $command in
serve)
    value --root "$@" >"$FAKE_STATE/root"
    test -s "$(value --cert "$@")" && test -s "$(value --key "$@")"
    serve
    ;;
perf-server) serve ;;
get)
    out=$(value -o "$@")
    test -s "$(value --ca "$@")"
    cp "$(cat "$FAKE_STATE/root")/file" "$out"
    case $FAKE in
    client-fails) echo 'certificate: not trusted' >&2 && exit 1 ;;
    hangs | serve-dies) sleep 600 ;;
    corrupts) printf X | dd of="$out" bs=1 seek=70000 conv=notrunc 2>/dev/null ;;
    esac
    results "$out"
    # The printed hash does not match the stored file.
    [ "$FAKE" != stores-wrong ] || printf X >>"$out"
    ;;
perf-client)
    [ "$FAKE" != perf-server-dies ] || sleep 600
    echo hdr >"$(value --hdr "$@")"
    echo 'p50: 12 us'
    ;;
ring)
    echo hdr >"$(value --out "$@")/latency.hdr"
    results "$(value --root "$@")/file"
    ;;
report) test -s "$1" && echo html >"$3" ;;
*) exit 2 ;;
esac
