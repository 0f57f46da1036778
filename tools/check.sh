#!/bin/sh
# What "make check" runs, after tools/bootstrap.sh: everything, even after a failure, and a summary at the end.
cd "$(dirname "$0")/.." || exit
MAKE=${MAKE:-make} PYTHON=${PYTHON:-/usr/bin/python3} JOBS=${JOBS:-2}
umask 022 # some tests run programs as other users
export TEST_TIMEOUT="${TEST_TIMEOUT:-600}"
summary= status=0 began=$(date +%s)

record() # NAME STATUS
{
    if [ "$2" = 0 ]; then verdict=ok; else verdict=FAILED status=1; fi
    now=$(date +%s)
    summary="$summary
$(printf '  %-32s %-6s %5d s' "$1" "$verdict" $((now - began)))"
    began=$now
}

step() # NAME COMMAND...
{
    name=$1
    shift
    echo "== $name"
    "$@"
    record "$name" $?
}

# The test programs of a build directory whose source is there: others are left over from deleted tests.
programs() # DIRECTORY KIND...
{
    dir=$1
    shift
    for kind; do
        for f in tests/"$kind"/*.c; do
            n=${f##*/}
            [ "$f" = tests/sim/run.c ] || [ "$f" = tests/fuzz/replay.c ] || echo "$dir/tests/${kind}_${n%.c}" # tools
        done
    done
}

# Runs programs, JOBS at a time, each bounded in time; output and status of each go to files beside it.
run() # PROGRAM...
{
    # shellcheck disable=SC2016
    printf '%s\n' "$@" | xargs -P "$JOBS" -n 1 sh -c 'timeout "$TEST_TIMEOUT" "$1" > "$1.log" 2>&1; echo $? > "$1.status"' sh
}

# Says of each which failed, and how it can be run again.
report() # PROGRAM...
{
    failed=0 passed=0 skipped=0
    for t; do
        rc=$(cat "$t.status")
        case $rc in
        0) passed=$((passed + 1)); tail -n 1 "$t.log" ;;
        77) skipped=$((skipped + 1)); echo "skipped: $t" ;;
        *) failed=$((failed + 1)); echo "FAILED ($rc): $t"; tail -n 40 "$t.log" ;;
        esac
    done
    echo "$passed programs passed, $failed failed, $skipped skipped"
    [ $failed = 0 ]
}

# The inputs that fuzzing kept, each target over its own.
corpora() # DIRECTORY
{
    failed=0
    for d in tests/fuzz/corpus/*/; do
        t=$1/tests/fuzz_$(basename "$d")
        timeout 120 "$t" "$d" > "$t.log" 2>&1 && tail -n 1 "$t.log" && continue
        failed=$((failed + 1))
        echo "FAILED: $t $d"
        tail -n 40 "$t.log"
    done
    [ $failed = 0 ]
}

# shellcheck disable=SC2046
check_programs()
{
    plain=$(programs build sim unit) sanitized=
    if grep -q '^HAVE_ASAN = 1' build/config.mk; then
        sanitized=$(programs build/asan sim unit)
        step "build, sanitized" "$MAKE" --no-print-directory -j"$JOBS" ASAN=1 $sanitized $(programs build/asan fuzz) build/asan/mpshim-engine
    else
        echo "no sanitizers here: that part is left out"
    fi
    rm -f build/tests/*.status build/asan/tests/*.status
    step "programs" run $sanitized $plain # the slow ones first
    step "unit, simulation" report $plain
    [ -z "$sanitized" ] || step "unit, simulation, sanitized" report $sanitized
    [ -z "$sanitized" ] || step "fuzz corpora, sanitized" corpora build/asan
}

[ -f build/config.mk ] || ./configure || exit
step "build" "$MAKE" --no-print-directory -j"$JOBS" tests
[ $status = 0 ] || { printf '\n%s\n' "$summary"; echo "the build failed" >&2; exit 1; }
step "border" tools/check-border.sh
check_programs
# Some tests run programs as other users, who must be able to read the tree: not so below /root.
closed()
{
    d=$PWD
    while [ "$d" != / ]; do
        case $(stat -c %A "$d") in *[xt]) ;; *) return 0 ;; esac
        d=$(dirname "$d")
    done
    return 1
}
if closed; then
    copy=$(mktemp -d /tmp/libmpshim-check.XXXXXX) || exit
    trap 'rm -rf "$copy"' EXIT
    trap 'exit 1' INT TERM
    chmod 755 "$copy" && cp -a . "$copy" && chmod 755 "$copy" && cd "$copy" || exit
fi
# Most of these wait, for emulated networks and for time to pass: two for each processor. What asserts times runs alone.
step "end to end" "$PYTHON" -m pytest -q -n $((2 * JOBS)) --dist loadgroup -m "not timing" tests
step "end to end, times and rates" "$PYTHON" -m pytest -q -m timing tests

printf '\n%s\n' "make check:$summary"
exit $status
