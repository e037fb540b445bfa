#!/bin/bash
# A Ceph RADOS gateway of one machine as the S3 store of tests. Everything listens on 127.0.0.1, everything is
# below DIR, and nothing is ended that was not started here. Root is not needed and does no harm.
#
#   ceph_rgw.sh missing               what is not installed, one package a line; nothing: all is there
#   ceph_rgw.sh start DIR             from nothing, or on what a stop left; then DIR/endpoint says how it is reached
#   ceph_rgw.sh kill-gateway DIR      SIGKILL for the gateway alone
#   ceph_rgw.sh start-gateway DIR     the gateway again, on the same port
#   ceph_rgw.sh stop DIR              ends all; with bluestore the objects stay
#   ceph_rgw.sh wipe DIR              ends all and removes DIR
#
# GATEWAY_OWNER=PID: when that process is gone, all ends as by wipe.
# CEPH_STORE=memstore (the default) keeps objects in memory, bluestore in a file of CEPH_STORE_BYTES.
# DIR/endpoint has lines NAME=VALUE: URL, TLS_URL, CA, ACCESS_KEY, SECRET_KEY, REGION.
set -euo pipefail

command=${1:-}
dir=${2:-}
store=${CEPH_STORE:-memstore}
store_bytes=${CEPH_STORE_BYTES:-4294967296}
access_key=walvaulttestaccess01
secret_key=walvaulttestsecret0000000000000000000001

die() {
    echo "ceph_rgw.sh: $*" >&2
    exit 1
}

# The process that was started here as $1, or nothing: a pid alone may be another's by now.
pid_of() {
    local pid line
    pid=$(cat "$dir/$1.pid" 2>/dev/null) || return 0
    line=$(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline") || return 0
    case $line in *" -c $dir/ceph.conf "*) echo "$pid" ;; esac
}

wait_gone() { # NAME SECONDS
    local pid
    pid=$(pid_of "$1")
    [ -z "$pid" ] || timeout "$2" tail --pid="$pid" -s 0.1 -f /dev/null
}

kill_now() {
    local pid
    pid=$(pid_of "$1")
    [ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true
    wait_gone "$1" 10 || die "$1 does not end"
    rm -f "$dir/$1.pid"
}

end_gently() {
    local pid
    pid=$(pid_of "$1")
    [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
    wait_gone "$1" 15 || kill_now "$1"
    rm -f "$dir/$1.pid"
}

# The gateway keeps nothing of its own, and a young one takes its time to go.
stop_all() {
    kill_now gateway
    end_gently osd
    end_gently mon
    rm -f "$dir/endpoint"
}

wipe() {
    for name in gateway osd mon; do kill_now $name; done
    rm -rf -- "$dir"
}

launch() { # NAME COMMAND...
    local name=$1
    shift
    setsid "$@" >"$dir/log/$name.out" 2>&1 </dev/null &
    echo $! >"$dir/$name.pid"
    disown
}

# Polls COMMAND, and gives up when the process NAME is gone.
wait_for() { # NAME TENTHS COMMAND...
    local name=$1 most=$2 tenths=0
    shift 2
    until "$@" >/dev/null 2>&1; do
        if [ -z "$(pid_of "$name")" ] || [ "$tenths" -ge "$most" ]; then give_up "$name does not come up"; fi
        sleep 0.1
        tenths=$((tenths + 1))
    done
}

give_up() {
    tail -n 15 "$dir"/log/*.out >&2 2>/dev/null || true
    stop_all
    die "$*"
}

# 30 neighbouring ports that nobody listens on: the gateway's two, the monitor's two, the rest the OSD's.
pick_ports() {
    local base port
    for _ in $(seq 100); do
        base=$((10000 + RANDOM % 700 * 30))
        for port in $(seq $base $((base + 29))); do
            if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then continue 2; fi
        done
        echo $base
        return
    done
    die "no free ports"
}

write_configuration() {
    local base=$1 fsid=$2
    cat >"$dir/ceph.conf" <<CONF
[global]
fsid = $fsid
mon host = [v2:127.0.0.1:$((base + 2))/0,v1:127.0.0.1:$((base + 3))/0]
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
ms bind port min = $((base + 4))
ms bind port max = $((base + 29))
auth cluster required = none
auth service required = none
auth client required = none
keyring = $dir/keyring
run dir = $dir
admin socket =
log file = $dir/log/\$name.log
mon cluster log file = $dir/log/cluster.log
log to stderr = false
err to stderr = true
crash dir = $dir/log
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
mon max pg per osd = 2000
[mon]
paxos propose interval = 0.05
paxos min wait = 0.01
mon data = $dir/mon
mon data avail crit = 1
mon data avail warn = 2
auth allow insecure global id reclaim = true
[osd]
osd data = $dir/osd
osd objectstore = $(cat "$dir/store")
memstore device bytes = $store_bytes
bluestore block path = $dir/osd.block
bluestore block size = $store_bytes
bluestore block create = true
bluefs buffered io = true
osd fast shutdown = false
osd op num shards = 2
osd op num threads per shard = 1
osd class load list = *
osd class default list = *
[client.rgw]
# "secure", its default, does not go together with auth none.
ms mon client mode = crc
rgw data = $dir/gateway
rgw frontends = beast endpoint=127.0.0.1:$base ssl_endpoint=127.0.0.1:$((base + 1)) ssl_certificate=$dir/tls/cert.pem ssl_private_key=$dir/tls/key.pem
rgw thread pool size = 64
rgw run sync thread = false
rgw dns name = s3.localhost
# How long an upload stays locked whose completion a killed gateway had begun; ten minutes by default.
rgw mp lock max time = 5
CONF
}

make_certificate() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=s3.localhost \
        -addext 'subjectAltName=DNS:s3.localhost,DNS:*.s3.localhost,IP:127.0.0.1' \
        -keyout "$dir/tls/key.pem" -out "$dir/tls/cert.pem" >"$dir/log/tls.out" 2>&1 || give_up "no certificate"
}

ask_ceph() { timeout 60 ceph -c "$dir/ceph.conf" --connect-timeout 5 "$@" 2>>"$dir/log/admin.out"; }
osd_is_up() { ask_ceph osd stat | grep -q '1 up'; }
gateway_answers() { curl --noproxy '*' -s -o "$dir/log/answer" --max-time 2 "$(cat "$dir/url")/"; }

start_monitor() {
    if [ ! -e "$dir/mon/store.db" ]; then
        local base
        base=$(cat "$dir/port")
        monmaptool --create --clobber --fsid "$(cat "$dir/fsid")" \
            --addv a "[v2:127.0.0.1:$((base + 2)),v1:127.0.0.1:$((base + 3))]" "$dir/monmap" \
            >"$dir/log/monmap.out" 2>&1 || give_up "no map of monitors"
        : >"$dir/keyring"
        ceph-mon -c "$dir/ceph.conf" -i a --mkfs --monmap "$dir/monmap" >"$dir/log/monmake.out" 2>&1 ||
            give_up "the monitor cannot be made"
    fi
    launch mon ceph-mon -c "$dir/ceph.conf" -i a -f
    wait_for mon 150 ask_ceph mon stat
}

start_osd() {
    if [ ! -e "$dir/osd/made" ]; then
        local id
        id=$(cat /proc/sys/kernel/random/uuid)
        ask_ceph osd new "$id" 0 >/dev/null || give_up "the monitor takes no OSD"
        ceph-osd -c "$dir/ceph.conf" -i 0 --mkfs --osd-uuid "$id" >"$dir/log/osdmake.out" 2>&1 ||
            give_up "the OSD cannot be made"
        : >"$dir/osd/made"
    fi
    launch osd ceph-osd -c "$dir/ceph.conf" -i 0 -f
    wait_for osd 300 osd_is_up
}

# Known to the gateway only when it starts.
add_class() {
    local zone=(radosgw-admin -c "$dir/ceph.conf" -n client.rgw)
    timeout 60 "${zone[@]}" zonegroup placement add --rgw-zonegroup default --placement-id default-placement \
        --storage-class "$1" >"$dir/log/class.out" 2>&1 || give_up "no class $1"
    timeout 60 "${zone[@]}" zone placement add --rgw-zone default --placement-id default-placement \
        --storage-class "$1" --data-pool "default.rgw.${1,,}.data" >"$dir/log/class.out" 2>&1 || give_up "no class $1"
}

start_gateway() {
    if [ ! -e "$dir/gateway/made" ]; then
        timeout 120 radosgw-admin -c "$dir/ceph.conf" -n client.rgw user create --uid test --display-name test \
            --access-key "$access_key" --secret-key "$secret_key" >"$dir/log/user.out" 2>&1 || give_up "no user"
        add_class GLACIER
        : >"$dir/gateway/made"
    fi
    launch gateway radosgw -c "$dir/ceph.conf" -n client.rgw -f
    wait_for gateway 900 gateway_answers
}

# Whatever becomes of the owner, nothing is left running.
guard() {
    [ -n "${GATEWAY_OWNER:-}" ] || return 0
    setsid "$0" guard "$dir" "$GATEWAY_OWNER" >/dev/null 2>&1 </dev/null &
    disown
}

start_all() {
    trap 'give_up interrupted' INT TERM
    # Objects in memory are gone with the process that had them, and half a cluster is none.
    if [ "$(cat "$dir/store" 2>/dev/null)" = memstore ]; then rm -rf "$dir"/{mon,osd,gateway,fsid,store}; fi
    mkdir -p "$dir"/{mon,osd,gateway,log,tls}
    [ -s "$dir/store" ] || echo "$store" >"$dir/store"
    [ -s "$dir/fsid" ] || cat /proc/sys/kernel/random/uuid >"$dir/fsid"
    [ -s "$dir/port" ] || pick_ports >"$dir/port"
    local base
    base=$(cat "$dir/port")
    echo "http://127.0.0.1:$base" >"$dir/url"
    [ -s "$dir/tls/cert.pem" ] || make_certificate
    write_configuration "$base" "$(cat "$dir/fsid")"
    start_monitor
    start_osd
    start_gateway
    cat >"$dir/endpoint.tmp" <<ENDPOINT
URL=http://127.0.0.1:$base
TLS_URL=https://127.0.0.1:$((base + 1))
CA=$dir/tls/cert.pem
ACCESS_KEY=$access_key
SECRET_KEY=$secret_key
REGION=default
ENDPOINT
    mv "$dir/endpoint.tmp" "$dir/endpoint"
    guard
}

missing() {
    local pair
    for pair in ceph-mon:ceph-mon monmaptool:ceph-common ceph-osd:ceph-osd radosgw:radosgw radosgw-admin:radosgw \
        ceph:ceph-common openssl:openssl curl:curl; do
        command -v "${pair%%:*}" >/dev/null || echo "${pair##*:}"
    done | sort -u
}

if [ "$command" = missing ]; then
    missing
    exit 0
fi
[ -n "$dir" ] || die "usage: $0 missing | start DIR | kill-gateway DIR | start-gateway DIR | stop DIR | wipe DIR"
mkdir -p "$dir"
dir=$(cd "$dir" && pwd -P)
[ -e "$dir/ceph.conf" ] || [ -z "$(ls -A "$dir")" ] || die "$dir holds something else"
case $command in
    start)
        [ -z "$(missing)" ] || die "needs $(missing | tr '\n' ' ')"
        stop_all
        start_all
        ;;
    kill-gateway) kill_now gateway ;;
    start-gateway) start_gateway ;;
    stop) stop_all ;;
    wipe) wipe ;;
    guard)
        while [ -e "/proc/$3" ] && [ -e "$dir/ceph.conf" ]; do sleep 1; done
        [ ! -e "$dir/ceph.conf" ] || wipe
        ;;
    *) die "unknown command: $command" ;;
esac
