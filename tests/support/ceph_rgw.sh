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

. "$(dirname "$(readlink -f "$0")")/gateway_script.sh"

store=${CEPH_STORE:-memstore}
store_bytes=${CEPH_STORE_BYTES:-4294967296}
access_key=walvaulttestaccess01
secret_key=walvaulttestsecret0000000000000000000001
gateways=gateway
stores="osd mon"
marker=ceph.conf

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
    wait_for mon 15 ask_ceph mon stat
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
    wait_for osd 30 osd_is_up
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
    wait_for gateway 90 gateway_answers
}

start_all() {
    # Objects in memory are gone with the process that had them, and half a cluster is none.
    if [ "$(cat "$dir/store" 2>/dev/null)" = memstore ]; then rm -rf "$dir"/{mon,osd,gateway,fsid,store}; fi
    mkdir -p "$dir"/{mon,osd,gateway,log,tls}
    [ -s "$dir/store" ] || echo "$store" >"$dir/store"
    [ -s "$dir/fsid" ] || cat /proc/sys/kernel/random/uuid >"$dir/fsid"
    # The gateway's two, the monitor's two, the rest the OSD's.
    [ -s "$dir/port" ] || pick_ports 30 >"$dir/port"
    local base
    base=$(cat "$dir/port")
    echo "http://127.0.0.1:$base" >"$dir/url"
    make_certificate
    write_configuration "$base" "$(cat "$dir/fsid")"
    start_monitor
    start_osd
    start_gateway
    tell_endpoint "$base" default
}

missing() {
    packages_without ceph-mon:ceph-mon monmaptool:ceph-common ceph-osd:ceph-osd radosgw:radosgw radosgw-admin:radosgw \
        ceph:ceph-common openssl:openssl curl:curl
}

obey "$@"
