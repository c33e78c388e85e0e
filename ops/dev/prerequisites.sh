#!/bin/sh
# Sees to the programs that the tests need beside Python: java (17 or newer), mvn, redis-server, faketime, Prometheus
# and Chromium; with the argument `servers` only to those that servers and drills need, which are the first four;
# with `kubernetes` to those of a Kubernetes API server: etcd and openssl; with `image` to mmdebstrap.
# As root on Debian it installs what is missing; anywhere else it names it and fails, having done nothing.
set -eu

missing=""
need() { # program, Debian package
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
java_version() { # its first number; nothing where there is no java that runs
    java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p'
}
wanted=${1:-all}
if [ "$wanted" = kubernetes ]; then
    need etcd etcd-server
    need openssl openssl
elif [ "$wanted" = image ]; then
    need mmdebstrap mmdebstrap
else
    [ "$(java_version)" -ge 17 ] 2>/dev/null || missing=" default-jre-headless"
    need mvn maven
    need redis-server redis-server
    if [ -f /etc/debian_version ]; then # elsewhere the drills that need it are left out
        need faketime faketime
    fi
fi
if [ "$wanted" = all ]; then
    need promtool prometheus
    command -v chromium-browser >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1 || need chromium chromium
fi
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && [ -f /etc/debian_version ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing$missing with apt-get ..."
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of words
    exec apt-get install -qq -o Dpkg::Use-Pty=0 -y --no-install-recommends $missing </dev/null
fi

echo "error: real servers are used here, and some of their programs are not on the PATH." >&2
echo "Debian's packages for them are:$missing" >&2
echo "On Debian or Ubuntu: sudo apt-get install$missing" >&2
[ "$wanted" = kubernetes ] || [ "$wanted" = image ] ||
    echo "On macOS: brew install openjdk maven redis prometheus; brew install --cask chromium" >&2
echo "Nothing was installed or changed." >&2
exit 1
