#!/bin/sh
# Installs what building (and, with --tests, testing; with --apps, the application matrix) libmpshim needs, if something is missing and we are root on
# a system with apt-get; otherwise says what to install. Quiet when all is there.
tests=0 fuzz=0 apps=0 cpython=0
for arg; do
    case $arg in
    --tests) tests=1 ;;
    --fuzz) fuzz=1 ;;
    --apps) apps=1 tests=1 ;;
    --cpython) cpython=1 tests=1 ;;
    *) echo "usage: tools/bootstrap.sh [--tests] [--fuzz] [--apps] [--cpython]" >&2; exit 2 ;;
    esac
done

missing=
need() # PACKAGE: asked of dpkg
{
    dpkg-query -W -f='${Status}' "$1" 2> /dev/null | grep -q 'ok installed' || missing="$missing $1"
}
need_program() # PROGRAM PACKAGE
{
    PATH=$PATH:/usr/sbin:/sbin command -v "$1" > /dev/null 2>&1 || missing="$missing $2"
}

if ! command -v dpkg-query > /dev/null 2>&1; then
    exit 0 # not Debian: configure names what is missing
fi
need_program gcc gcc
need_program make make
need_program pkg-config pkg-config
for p in libc6-dev libev-dev libmnl-dev libssl-dev libjansson-dev libinih-dev libc-ares-dev iproute2 python3; do need $p; done
need_program curl curl
need_program mptcpize mptcpize
need_program ethtool ethtool
if [ $tests = 1 ]; then
    for p in python3-pytest python3-pytest-xdist python3-scapy; do need $p; done
    need_program nft nftables
    need_program nginx nginx-light
    need_program tcpdump tcpdump
    need_program ping iputils-ping
    need_program setpriv util-linux
    need_program setcap libcap2-bin
    need build-essential # what a Debian package may count on, and a C++ compiler for include/mpshim.h
    need_program sysctl procps
    need_program strace strace
    need_program wget wget
    need_program openssl openssl
fi
if [ $apps = 1 ]; then # only for "make apps"
    for p in wget aria2 git openssh-server openssh-client rsync perl nodejs openjdk-17-jdk-headless iperf3 haproxy apache2 \
        redis-server redis-tools postgresql postgresql-client socat ncat wrk apache2-utils busybox xinetd; do need $p; done
fi
if [ $cpython = 1 ]; then # only for "make cpython-tests"
    need "lib$(/usr/bin/python3 -c 'import sys; print("python%d.%d" % sys.version_info[:2])')-testsuite"
fi
if [ $fuzz = 1 ]; then # only for "make fuzz"
    need_program clang clang
    need libclang-rt-14-dev
fi
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null 2>&1; then
    echo "missing:$missing" >&2
    echo "as root: apt-get update && apt-get install -y --no-install-recommends$missing" >&2
    exit 1
fi
echo "installing:$missing"
log=$(mktemp) || exit
export DEBIAN_FRONTEND=noninteractive
# A package that starts a server when installed (nginx) must not: the tests start their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' > $policy && chmod +x $policy
    trap 'rm -f $policy "$log"' EXIT
else
    trap 'rm -f "$log"' EXIT
fi
# shellcheck disable=SC2086
if ! { apt-get -q update && apt-get -qy install --no-install-recommends $missing; } > "$log" 2>&1; then
    tail -n 30 "$log" >&2
    echo "could not install:$missing" >&2
    exit 1
fi
