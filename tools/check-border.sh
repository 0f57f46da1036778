#!/bin/sh
# Keeps core/ what docs/architecture.md says it is: no system call, no clock, no random number, nothing of the
# parts above it. First by the includes, then by the symbols that its objects need. And that page names each file.
cd "$(dirname "$0")/.." || exit
status=0

# C's own headers without time.h; OpenSSL for the hashes; assert and inttypes change nothing.
allowed='<(assert|errno|inttypes|limits|math|stdarg|stdbool|stddef|stdint|stdio|stdlib|string)\.h>|<openssl/[a-z0-9_]+\.h>|"core/[a-z0-9_/]+\.(h|def)"'
bad=$(grep -rnE '^[[:space:]]*#[[:space:]]*include' libmpshim/core | grep -vE "include[[:space:]]+($allowed)")
if [ -n "$bad" ]; then
    echo "core/ may not include this:" >&2
    echo "$bad" >&2
    status=1
fi

lib=${B:-build}/libmpcore.a
if [ -f "$lib" ]; then
    forbidden='time|clock_gettime|gettimeofday|rand|random|srand|getrandom|arc4random|getentropy|socket|bind|connect|listen|accept4?|sendto|sendmsg|recv|recvfrom|recvmsg|open|open64|close|read|write|ioctl|poll|epoll_wait|select|fork|system|getenv|secure_getenv|getpid|printf|puts|fopen|fopen64|usleep|nanosleep|syscall|RAND_bytes|ev_.*|mnl_.*|io_.*|eng_.*|shim_.*'
    bad=$(nm -A --undefined-only "$lib" 2> /dev/null | awk '{ print $1, $NF }' | grep -E " ($forbidden)(@.*)?$")
    if [ -n "$bad" ]; then
        echo "core/ may not call this:" >&2
        echo "$bad" >&2
        status=1
    fi
fi
[ $status -ne 0 ] || echo "border: core/ keeps to itself"
tools/check-map.sh || status=1
exit $status
