# What the scripts of this folder share. Sourced, never run.
# shellcheck shell=bash disable=SC2034  # its variables are used by the scripts that source it

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${HOME:?is not set: it is where the cache folder .cache/mlwm lies}/.cache/mlwm

ORT_VERSION=1.31.1
ORT_LIBRARY=$CACHE/onnxruntime/$ORT_VERSION/libonnxruntime.so
BASE_IMAGE=mlwm-base:bookworm
PYTHON=$CACHE/python/bin/python
GARAGE_VERSION=2.5.0
GARAGE=$CACHE/garage/bin/garage

# die MESSAGE: ends the script.
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# say STEP STATE: one line about a step.
say() {
    printf '%s: %s\n' "$1" "$2"
}

# show COMMAND...: prints a command so that it can be repeated by hand, then runs it.
show() {
    printf '\n$'
    printf ' %q' "$@"
    printf '\n'
    "$@"
}

# need_space FOLDER MIB WHAT: ends the script if the file system of FOLDER (which may not exist yet)
# has less free space than that.
need_space() {
    local folder=$1 free
    while [[ ! -e $folder ]]; do folder=$(dirname "$folder"); done
    free=$(($(df --output=avail -k "$folder" | tail -n 1) / 1024))
    ((free >= $2)) || die "not enough disk space for $3: $1 needs $2 MiB and has $free MiB free"
}

# engines: the addresses where a container engine may listen, in the order in which mlwm tries them.
engines() {
    local named=${DOCKER_HOST:-${CONTAINER_HOST:-}}
    if [[ -n $named ]]; then
        printf '%s\n' "$named"
    else
        printf 'unix://%s\n' /var/run/docker.sock \
            "${XDG_RUNTIME_DIR:-/run/user/$(id -u)}/podman/podman.sock" /run/podman/podman.sock
    fi
}

# engine_get ADDRESS PATH [CURL-OPTION...]: asks the engine at ADDRESS, over the API that Docker and
# Podman share. Fails where nothing answers or the answer is an error.
engine_get() {
    local address=$1 path=$2
    shift 2
    case $address in
        unix://*) curl --fail-with-body -sS --unix-socket "${address#unix://}" "$@" "http://engine$path" ;;
        tcp://*) curl --fail-with-body -sS "$@" "http://${address#tcp://}$path" ;;
        *) return 1 ;;
    esac
}

# find_engine: the address of the first engine that answers; fails if none does.
find_engine() {
    local address
    for address in $(engines); do
        if engine_get "$address" /_ping -m 5 >/dev/null 2>&1; then
            printf '%s\n' "$address"
            return
        fi
    done
    return 1
}

# target_dir: where cargo builds. On CI a folder that outlives the clone, so that it stays warm.
target_dir() {
    if [[ ${CI:-} == true ]]; then
        printf '%s\n' "${MLWM_TARGET_DIR:-$CACHE/target}"
    else
        printf '%s\n' "${CARGO_TARGET_DIR:-$ROOT/target}"
    fi
}
