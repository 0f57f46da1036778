#!/bin/sh
# Builds mpshim-engine over the fake stack and network: build.sh OUTPUT [compiler flags]
set -e
out=$1; shift
cd "$(dirname "$0")/../../.."
exec gcc -std=c17 -D_GNU_SOURCE= -O2 -g -Wall -Wextra -Ilibmpshim -DMOVE_LAYOUT=0u -pthread "$@" -o "$out" \
    libmpshim/engine/*.c tests/engine/fake/fake.c \
    libmpshim/core/event.c libmpshim/core/wire.c libmpshim/core/opt_emit.c libmpshim/core/settings.c libmpshim/core/cc/*.c libmpshim/core/sched/*.c \
    -lev -lmnl -ljansson -lcrypto -lm
