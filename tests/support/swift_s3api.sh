#!/bin/bash
# OpenStack Swift of one machine, with s3api in front of it, as another S3 store than ceph_rgw.sh's, for tests that are
# run by hand. Everything listens on 127.0.0.1, everything is below DIR, and nothing is ended that was not started here.
# DIR is on a file system with extended attributes. Root is not needed and does no harm.
#
#   swift_s3api.sh missing               what is not installed, one package a line; nothing: all is there
#   swift_s3api.sh start DIR             from nothing, or on what a stop left; then DIR/endpoint says how it is reached
#   swift_s3api.sh kill-gateway DIR      SIGKILL for the proxies alone
#   swift_s3api.sh start-gateway DIR     the proxies again, on the same ports
#   swift_s3api.sh stop DIR              ends all; the objects stay
#   swift_s3api.sh wipe DIR              ends all and removes DIR
#
# GATEWAY_OWNER=PID: when that process is gone, all ends as by wipe.
# DIR/endpoint has lines NAME=VALUE: URL, TLS_URL, CA, ACCESS_KEY, SECRET_KEY, REGION.
set -euo pipefail

command=${1:-}
dir=${2:-}
access_key=test:walvault # as tempauth has it: account, user
secret_key=walvaulttestsecret0000000000000000000001
region=us-east-1
gateways="tls proxy"
stores="updater object container account memcached"

die() {
    echo "swift_s3api.sh: $*" >&2
    exit 1
}

# The process that was started here as $1, or nothing: a pid alone may be another's by now.
pid_of() {
    local pid
    pid=$(cat "$dir/$1.pid" 2>/dev/null) || return 0
    if tr '\0' '\n' 2>/dev/null <"/proc/$pid/environ" | grep -qxF "SWIFT_STARTED_AS=$dir/$1"; then echo "$pid"; fi
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

stop_all() {
    for name in $gateways; do kill_now "$name"; done
    for name in $stores; do end_gently "$name"; done
    rm -f "$dir/endpoint"
}

wipe() {
    for name in $gateways $stores; do kill_now "$name"; done
    rm -rf -- "$dir"
}

launch() { # NAME COMMAND...
    local name=$1
    shift
    setsid env "SWIFT_STARTED_AS=$dir/$name" "$@" >>"$dir/log/$name.out" 2>&1 </dev/null &
    echo $! >"$dir/$name.pid"
    disown
}

# Polls COMMAND, and gives up when the process NAME is gone. It has two seconds to become itself.
wait_for() { # NAME TENTHS COMMAND...
    local name=$1 most=$2 tenths=0
    shift 2
    until "$@" >/dev/null 2>&1; do
        if [ "$tenths" -ge 20 ] && [ -z "$(pid_of "$name")" ]; then give_up "$name has ended"; fi
        if [ "$tenths" -ge "$most" ]; then give_up "$name does not come up"; fi
        sleep 0.1
        tenths=$((tenths + 1))
    done
}

give_up() {
    tail -n 15 "$dir"/log/*.out >&2 2>/dev/null || true
    stop_all
    die "$*"
}

# Six neighbouring ports that nobody listens on: the two proxies, the three servers, memcached.
pick_ports() {
    local base port
    for _ in $(seq 100); do
        base=$((10000 + RANDOM % 3500 * 6))
        for port in $(seq $base $((base + 5))); do
            if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then continue 2; fi
        done
        echo $base
        return
    done
    die "no free ports"
}

write_server() { # KIND PORT
    cat >"$dir/$1.conf" <<CONF
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = $2
workers = 0
user = $(id -un)
swift_dir = $dir
devices = $dir/devices
mount_check = false
recon_cache_path = $dir
[pipeline:main]
pipeline = $1-server
[app:$1-server]
use = egg:swift#$1
[object-updater]
interval = 1
CONF
}

write_proxy() { # NAME PORT MORE
    cat >"$dir/$1.conf" <<CONF
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = $2
workers = 0
user = $(id -un)
swift_dir = $dir
$3
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck cache listing_formats bulk s3api tempauth copy slo dlo versioned_writes symlink proxy-logging proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
# There is one of each server: a slow one is waited for, and a failed one asked again at once.
conn_timeout = 10
node_timeout = 60
error_suppression_limit = 1000000
[filter:s3api]
use = egg:swift#s3api
location = $region
storage_domain = s3.localhost
[filter:tempauth]
use = egg:swift#tempauth
user_${access_key/:/_} = $secret_key .admin
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:$memcached_port
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_object_versioning = true
[filter:proxy-logging]
use = egg:swift#proxy_logging
CONF
    local filter
    for filter in catch_errors gatekeeper healthcheck listing_formats bulk copy slo dlo symlink; do
        printf '[filter:%s]\nuse = egg:swift#%s\n' $filter $filter >>"$dir/$1.conf"
    done
}

# What Swift knows the place of everything by: here all of it is on one device of one server of each kind.
make_rings() { # PORT, the account server's
    [ ! -e "$dir/object.ring.gz" ] || return 0
    /usr/bin/python3 - "$dir" "$1" >"$dir/log/ring.out" 2>&1 <<'PYTHON' || give_up "no rings"
import sys
from swift.common.ring import RingBuilder
for number, kind in enumerate(("account", "container", "object")):
    ring = RingBuilder(part_power=4, replicas=1, min_part_hours=0)
    ring.add_dev({"id": 0, "region": 1, "zone": 1, "weight": 1.0, "ip": "127.0.0.1", "meta": "",
                  "port": int(sys.argv[2]) + number, "device": "one"})
    ring.rebalance()
    ring.get_ring().save(f"{sys.argv[1]}/{kind}.ring.gz")
PYTHON
}

make_certificate() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=s3.localhost \
        -addext 'subjectAltName=DNS:s3.localhost,DNS:*.s3.localhost,IP:127.0.0.1' \
        -keyout "$dir/tls/key.pem" -out "$dir/tls/cert.pem" >"$dir/log/tls.out" 2>&1 || give_up "no certificate"
}

write_configuration() {
    local base=$1 kind port=$(($1 + 2))
    printf '[swift-hash]\nswift_hash_path_suffix = walvault\n' >"$dir/swift.conf"
    for kind in account container object; do
        write_server $kind $port
        port=$((port + 1))
    done
    make_rings $((base + 2))
    memcached_port=$((base + 5))
    write_proxy proxy "$base" ""
    write_proxy tls $((base + 1)) "cert_file = $dir/tls/cert.pem
key_file = $dir/tls/key.pem"
}

gateway_answers() { # URL
    curl --noproxy '*' --cacert "$dir/tls/cert.pem" -sf -o "$dir/log/answer" --max-time 2 "$1/healthcheck"
}

start_gateway() {
    local base
    base=$(cat "$dir/port")
    launch proxy swift-proxy-server "$dir/proxy.conf" -v
    launch tls swift-proxy-server "$dir/tls.conf" -v
    wait_for proxy 600 gateway_answers "http://127.0.0.1:$base"
    wait_for tls 600 gateway_answers "https://127.0.0.1:$((base + 1))"
}

# Whatever becomes of the owner, nothing is left running.
guard() {
    [ -n "${GATEWAY_OWNER:-}" ] || return 0
    setsid "$0" guard "$dir" "$GATEWAY_OWNER" >/dev/null 2>&1 </dev/null &
    disown
}

start_all() {
    trap 'give_up interrupted' INT TERM
    mkdir -p "$dir"/{devices/one,log,tls}
    [ -s "$dir/port" ] || pick_ports >"$dir/port"
    local base kind
    base=$(cat "$dir/port")
    [ -s "$dir/tls/cert.pem" ] || make_certificate
    write_configuration "$base"
    launch memcached memcached -l 127.0.0.1 -p $((base + 5)) -U 0 -u "$(id -un)"
    for kind in account container object; do launch $kind swift-$kind-server "$dir/$kind.conf" -v; done
    # Lists are told of objects by it where the container server did not answer at once.
    launch updater swift-object-updater "$dir/object.conf" -v
    start_gateway
    cat >"$dir/endpoint.tmp" <<ENDPOINT
URL=http://127.0.0.1:$base
TLS_URL=https://127.0.0.1:$((base + 1))
CA=$dir/tls/cert.pem
ACCESS_KEY=$access_key
SECRET_KEY=$secret_key
REGION=$region
ENDPOINT
    mv "$dir/endpoint.tmp" "$dir/endpoint"
    guard
}

missing() {
    local pair
    for pair in swift-proxy-server:swift-proxy swift-account-server:swift-account \
        swift-container-server:swift-container swift-object-server:swift-object memcached:memcached \
        openssl:openssl curl:curl; do
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
[ -e "$dir/swift.conf" ] || [ -z "$(ls -A "$dir")" ] || die "$dir holds something else"
case $command in
    start)
        [ -z "$(missing)" ] || die "needs $(missing | tr '\n' ' ')"
        stop_all
        start_all
        ;;
    kill-gateway) for name in $gateways; do kill_now "$name"; done ;;
    start-gateway) start_gateway ;;
    stop) stop_all ;;
    wipe) wipe ;;
    guard)
        while [ -e "/proc/$3" ] && [ -e "$dir/swift.conf" ]; do sleep 1; done
        [ ! -e "$dir/swift.conf" ] || wipe
        ;;
    *) die "unknown command: $command" ;;
esac
