#!/bin/sh
# enter.sh ROOT COMMAND...: runs COMMAND with ROOT as its file system, the repository at /gannet.
#
# The caller has created a mount namespace and a process namespace for it (`unshare`), of which this is the first
# process: when it ends, for whatever reason, the kernel ends all others in it, and no mount outlives them. Mounts are
# not visible anywhere else.
set -eu

mounted() { # mounted SOURCE TARGET [ro]
    mkdir -p "$root$2"
    mount --bind "$1" "$root$2"
    [ "${3:-}" = "" ] || mount -o remount,bind,"$3" "$root$2"
}

# A function, so that the shell has read all of it before it runs any of it.
main() {
    root=$1
    shift

    # `ip netns exec` requires the root to be a mount point.
    mount --bind "$root" "$root"
    mount -t proc proc "$root/proc"
    # Mounts sysfs for the current network namespace.
    mount -t sysfs sysfs "$root/sys"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs tmpfs "$root/dev/shm"
    mount -t tmpfs tmpfs "$root/run"
    mount -t tmpfs tmpfs "$root/tmp"
    mounted "$GANNET_REPOSITORY" /gannet ro
    mounted "$GANNET_BUILDS" /gannet-target
    mounted "$GANNET_RUST" "$GANNET_RUST" ro
    mounted "$GANNET_CRATES" "$GANNET_CRATES" ro
    if [ -n "${GANNET_NEXTEST:-}" ]; then
        : >>"$root/usr/local/bin/cargo-nextest"
        mount --bind "$GANNET_NEXTEST" "$root/usr/local/bin/cargo-nextest"
    fi
    if [ -n "${GANNET_OFFLINE:-}" ]; then
        ip link set lo up
    else
        # This machine's way to the network, and whom it trusts there.
        for file in resolv.conf hosts pip.conf ssl/certs/ca-certificates.crt; do
            [ ! -e "/etc/$file" ] || {
                mkdir -p "$(dirname "$root/etc/$file")"
                rm -f "$root/etc/$file"
                cat "/etc/$file" >"$root/etc/$file"
            }
        done
    fi

    # Not `exec`: the first process of a namespace hears only signals that it has asked for.
    trap 'exit 143' TERM INT HUP
    chroot "$root" /usr/bin/env -i - HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive RUST_BACKTRACE=1 \
        PATH="$GANNET_RUST/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
        CARGO_HOME="$GANNET_CRATES" CARGO_NET_OFFLINE=true CARGO_TARGET_DIR=/gannet-target \
        /bin/sh -c 'cd /gannet && exec "$@"' sh "$@" &
    wait $!
}

main "$@"
