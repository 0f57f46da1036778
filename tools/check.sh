#!/bin/sh
# What "make check" runs, after tools/bootstrap.sh: everything, even after a failure, and a summary at the end.
cd "$(dirname "$0")/.." || exit
MAKE=${MAKE:-make} PYTHON=${PYTHON:-/usr/bin/python3} JOBS=${JOBS:-2} TEST_TIMEOUT=${TEST_TIMEOUT:-600}
summary= status=0

record() # NAME STATUS
{
    if [ "$2" = 0 ]; then verdict=ok; else verdict=FAILED status=1; fi
    summary="$summary
$(printf '  %-28s %s' "$1" "$verdict")"
}

step() # NAME COMMAND...
{
    name=$1
    shift
    echo "== $name"
    "$@"
    record "$name" $?
}

# Runs each test program in a build directory, each bounded in time; says which fails and how to run it again.
programs() # DIRECTORY PATTERN...
{
    dir=$1 failed=0 passed=0 skipped=0
    shift
    for pattern; do
        for t in "$dir"/tests/${pattern}_*; do
            [ -f "$t" ] && [ -x "$t" ] || continue
            case $t in *sim_run) continue ;; esac # a tool; sim_property and sim_scenarios run the same code
            [ -f "tests/$pattern/${t##*/"${pattern}"_}.c" ] || continue # left over from a deleted test
            timeout "$TEST_TIMEOUT" "$t" > "$t.log" 2>&1
            rc=$?
            case $rc in
            0) passed=$((passed + 1)); tail -n 1 "$t.log" ;;
            77) skipped=$((skipped + 1)); echo "skipped: $t" ;;
            *) failed=$((failed + 1)); echo "FAILED ($rc): $t"; tail -n 40 "$t.log" ;;
            esac
        done
    done
    echo "$dir: $passed programs passed, $failed failed, $skipped skipped"
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

[ -f build/config.mk ] || ./configure || exit
step "build" "$MAKE" --no-print-directory -j"$JOBS" tests || { printf '\n%s\n' "$summary"; exit 1; }
[ $status = 0 ] || { echo "the build failed" >&2; exit 1; }
step "border" tools/check-border.sh
step "unit, simulation" programs build unit sim
if grep -q '^HAVE_ASAN = 1' build/config.mk; then
    asan_programs=$(for f in tests/unit/*.c tests/sim/*.c tests/fuzz/*.c; do
        [ -f "$f" ] && [ "$f" != tests/fuzz/replay.c ] || continue
        d=${f%/*}
        n=${f##*/}
        echo "build/asan/tests/${d##*/}_${n%.c}"
    done)
    # shellcheck disable=SC2086
    step "build, sanitized" "$MAKE" --no-print-directory -j"$JOBS" ASAN=1 $asan_programs
    step "unit, simulation, sanitized" programs build/asan unit sim
    step "fuzz corpora, sanitized" corpora build/asan
else
    echo "no sanitizers here: that part is left out"
fi
# Tests that assert times take turns (tests/conftest.py); loadgroup keeps them on one worker.
step "end to end" "$PYTHON" -m pytest -q -n 2 --dist loadgroup tests

printf '\n%s\n' "make check:$summary"
exit $status
