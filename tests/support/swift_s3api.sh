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

. "$(dirname "$(readlink -f "$0")")/gateway_script.sh"

access_key=test:walvault # as tempauth has it: account, user
secret_key=walvaulttestsecret0000000000000000000001
region=us-east-1
gateways="tls proxy"
stores="updater object container account memcached"
marker=swift.conf

write_head() { # NAME PORT
    cat >"$dir/$1.conf" <<CONF
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = $2
workers = 0
user = $(id -un)
swift_dir = $dir
CONF
}

write_server() { # KIND PORT
    write_head "$1" "$2"
    cat >>"$dir/$1.conf" <<CONF
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
    write_head "$1" "$2"
    cat >>"$dir/$1.conf" <<CONF
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
    wait_for proxy 60 gateway_answers "http://127.0.0.1:$base"
    wait_for tls 60 gateway_answers "https://127.0.0.1:$((base + 1))"
}

start_all() {
    mkdir -p "$dir"/{devices/one,log,tls}
    # The two proxies, the three servers, memcached.
    [ -s "$dir/port" ] || pick_ports 6 >"$dir/port"
    local base kind
    base=$(cat "$dir/port")
    make_certificate
    write_configuration "$base"
    launch memcached memcached -l 127.0.0.1 -p $((base + 5)) -U 0 -u "$(id -un)"
    for kind in account container object; do launch $kind swift-$kind-server "$dir/$kind.conf" -v; done
    # Lists are told of objects by it where the container server did not answer at once.
    launch updater swift-object-updater "$dir/object.conf" -v
    start_gateway
    tell_endpoint "$base" "$region"
}

missing() {
    packages_without swift-proxy-server:swift-proxy swift-account-server:swift-account \
        swift-container-server:swift-container swift-object-server:swift-object memcached:memcached \
        openssl:openssl curl:curl
}

obey "$@"
