# What the scripts of S3 gateways share (ceph_rgw.sh, swift_s3api.sh), which source it: processes of one directory $dir,
# ports, a certificate, the file `endpoint`, and the commands.
#
# Of a script that sources it: $gateways and $stores, names of processes in the order in which they end; $marker, a file
# that says that $dir is its own; missing(), start_all(), start_gateway().

command=${1:-}
dir=${2:-}

die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# The process that was started here as $1, or nothing: a pid alone may be another's by now.
pid_of() {
    local pid
    pid=$(cat "$dir/$1.pid" 2>/dev/null) || return 0
    if tr '\0' '\n' 2>/dev/null <"/proc/$pid/environ" | grep -qxF "GATEWAY_STARTED_AS=$dir/$1"; then echo "$pid"; fi
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

# Gateways keep nothing of their own, and a young one takes its time to go.
stop_all() {
    local name
    for name in $gateways; do kill_now "$name"; done
    for name in $stores; do end_gently "$name"; done
    rm -f "$dir/endpoint"
}

wipe() {
    local name
    for name in $gateways $stores; do kill_now "$name"; done
    rm -rf -- "$dir"
}

launch() { # NAME COMMAND...
    local name=$1
    shift
    GATEWAY_STARTED_AS="$dir/$name" setsid "$@" >>"$dir/log/$name.out" 2>&1 </dev/null &
    echo $! >"$dir/$name.pid"
    disown
}

# Until COMMAND succeeds, which is tried ten times a second, the process NAME has ended, or SECONDS are over. It tells
# nobody when it is ready.
wait_for() { # NAME SECONDS COMMAND...
    local name=$1 until=$((SECONDS + $2)) pid
    pid=$(cat "$dir/$name.pid")
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$until" ] || give_up "$name does not come up"
        ! timeout 0.1 tail --pid="$pid" -s 0.05 -f /dev/null || give_up "$name has ended"
    done
}

give_up() {
    tail -n 15 "$dir"/log/*.out >&2 2>/dev/null || true
    stop_all
    die "$*"
}

# Neighbouring ports that nobody listens on; the first one.
pick_ports() { # COUNT
    local base port
    for _ in $(seq 100); do
        base=$((10000 + RANDOM % (21000 / $1) * $1))
        for port in $(seq $base $((base + $1 - 1))); do
            if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then continue 2; fi
        done
        echo $base
        return
    done
    die "no free ports"
}

make_certificate() {
    [ ! -s "$dir/tls/cert.pem" ] || return 0
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=s3.localhost \
        -addext 'subjectAltName=DNS:s3.localhost,DNS:*.s3.localhost,IP:127.0.0.1' \
        -keyout "$dir/tls/key.pem" -out "$dir/tls/cert.pem" >"$dir/log/tls.out" 2>&1 || give_up "no certificate"
}

# All is up: whoever waits for the file may begin. Whatever becomes of GATEWAY_OWNER, nothing is left running.
tell_endpoint() { # PORT REGION; TLS is on the port behind it
    cat >"$dir/endpoint.tmp" <<ENDPOINT
URL=http://127.0.0.1:$1
TLS_URL=https://127.0.0.1:$(($1 + 1))
CA=$dir/tls/cert.pem
ACCESS_KEY=$access_key
SECRET_KEY=$secret_key
REGION=$2
ENDPOINT
    mv "$dir/endpoint.tmp" "$dir/endpoint"
    [ -n "${GATEWAY_OWNER:-}" ] || return 0
    setsid "$0" guard "$dir" "$GATEWAY_OWNER" >/dev/null 2>&1 </dev/null &
    disown
}

# Of PROGRAM:PACKAGE the packages whose program is not there.
packages_without() {
    local pair
    for pair in "$@"; do command -v "${pair%%:*}" >/dev/null || echo "${pair##*:}"; done | sort -u
}

obey() { # what the script was called with
    if [ "$command" = missing ]; then
        missing
        return
    fi
    [ -n "$dir" ] || die "usage: $0 missing | start DIR | kill-gateway DIR | start-gateway DIR | stop DIR | wipe DIR"
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd -P)
    [ -e "$dir/$marker" ] || [ -z "$(ls -A "$dir")" ] || die "$dir holds something else"
    local name
    case $command in
        start)
            [ -z "$(missing)" ] || die "needs $(missing | tr '\n' ' ')"
            stop_all
            trap 'give_up interrupted' INT TERM
            start_all
            ;;
        kill-gateway) for name in $gateways; do kill_now "$name"; done ;;
        start-gateway) start_gateway ;;
        stop) stop_all ;;
        wipe) wipe ;;
        guard)
            while [ -e "$dir/$marker" ] && ! timeout 1 tail --pid="$3" -s 0.2 -f /dev/null; do :; done
            [ ! -e "$dir/$marker" ] || wipe
            ;;
        *) die "unknown command: $command" ;;
    esac
}
