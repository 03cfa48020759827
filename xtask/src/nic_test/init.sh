#!/bin/busybox sh
# The first process of an emulated machine: binds its NICs to vfio-pci, and does what the second serial port says.
export PATH=/bin:/usr/bin HOME=/
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /tmp /run /dev/shm /dev/hugepages
for dir in /tmp /run /dev/shm; do mount -t tmpfs tmpfs $dir; done
mount -t hugetlbfs -o pagesize=2M hugetlbfs /dev/hugepages
ln -sf /proc/self/fd /dev/fd
mkdir -p /tmp/job /tmp/www /tmp/got /tmp/up
ifconfig lo up
while read -r module; do insmod /modules/$module; done </modules/order
word() { tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p"; }
word huge >/proc/sys/vm/nr_hugepages

# bind ADDRESS: hands a PCI device to vfio-pci.
bind() {
    dir=/sys/bus/pci/devices/$1
    echo vfio-pci >$dir/driver_override
    [ -e $dir/driver ] && echo $1 >$dir/driver/unbind
    echo $1 >/sys/bus/pci/drivers_probe
    readlink $dir/driver | grep -q vfio-pci
}
# nic SLOT: the address of the network device in a slot of the first bus, or behind the root port, and perhaps a bridge,
# that is there.
nic() {
    dir=/sys/bus/pci/devices/0000:00:$1.0
    for class in $dir/class $dir/0000:*/class $dir/0000:*/0000:*/class; do
        case $(cat $class) in
        0x0200*) dir=${class%/class}; echo ${dir##*/}; return ;;
        esac
    done 2>/dev/null
    return 1
}
# run JOB COMMAND...: starts a command; its output, process and exit code go to files.
run() {
    job=/tmp/job/$1
    shift
    rm -f $job.*
    (
        sh -c 'echo $$ >'$job.pid'; exec "$@"' sh "$@" >$job.out 2>$job.err </dev/null
        echo $? >$job.new
        mv $job.new $job.rc
    ) &
}
# end JOB: kills a command that still runs, and waits for its end, which would otherwise be taken for that of the next one.
end() {
    job=/tmp/job/$1
    [ -e $job.pid ] || return 0
    for _ in $(seq 100); do
        [ -e $job.rc ] && return 0
        kill -KILL $(cat $job.pid)
        sleep 0.1
    done
    return 1
}
# state JOB: its exit code or -, and how much it has written.
state() {
    rc=-
    [ -e /tmp/job/$1.rc ] && rc=$(cat /tmp/job/$1.rc)
    echo $rc $(cat /tmp/job/$1.out /tmp/job/$1.err | wc -c) $(du -sk /tmp/got /tmp/up | awk '{ n += $1 } END { print n }')
}
for class in /sys/bus/pci/devices/*/class; do
    case $(cat $class) in
    0x0200*) dir=${class%/class}; bind ${dir##*/} || echo "${dir##*/} is not bound to vfio-pci" ;;
    esac
done

stty -F /dev/ttyS1 raw -echo 115200
exec 3<>/dev/ttyS1
echo "- = 0" >&3
while read -r number line <&3; do
    (eval "$line") >/tmp/said 2>&1
    rc=$?
    sed "s/^/$number /" /tmp/said >&3
    echo "$number = $rc" >&3
done
poweroff -f
