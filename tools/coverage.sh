#!/bin/sh
# What "make coverage" runs: unit and simulation programs built with gcov into $COV (default build/cov), then the
# share of lines of each file of libmpshim/core that they reach. Less than COVERAGE_MIN (90) in total is an error. A
# program that needs more than COVERAGE_TIMEOUT seconds of a processor is stopped, named, and does not count.
cd "$(dirname "$0")/.." || exit
MAKE=${MAKE:-make} JOBS=${JOBS:-2} COV=${COV:-build/cov} COVERAGE_MIN=${COVERAGE_MIN:-90} COVERAGE_TIMEOUT=${COVERAGE_TIMEOUT:-60}
command -v gcov > /dev/null || { echo "coverage needs gcov, which comes with gcc: apt-get install gcc" >&2; exit 1; }
[ -f build/config.mk ] || ./configure > /dev/null || exit

programs=
for f in tests/unit/*.c tests/sim/*.c; do
    d=${f%/*} n=${f##*/}
    [ "$n" = run.c ] || programs="$programs $COV/tests/${d##*/}_${n%.c}" # run is a tool
done
# --coverage is in CFLAGS so that compiling and linking have it alike.
# shellcheck disable=SC2086
$MAKE --no-print-directory -j"$JOBS" B="$COV" CFLAGS="-O1 -g --coverage" $programs > "$COV.log" 2>&1 ||
    { mkdir -p "$COV"; tail -n 30 "$COV.log" >&2; exit 1; }
find "$COV" -name '*.gcda' -delete
failed= late=
export MPSHIM_SIM_SEEDS="${MPSHIM_SIM_SEEDS:-1..300}" # of sim_property's random networks; further ones reach little more
for t in $programs; do
    # shellcheck disable=SC3045 # dash and bash have it
    (ulimit -t "$COVERAGE_TIMEOUT" && exec "$t") > "$t.log" 2>&1
    case $? in
    0 | 77) ;;
    137 | 152) late="$late ${t##*/}" ;;
    *) failed="$failed ${t##*/}" ;;
    esac
done

objects=$(find "$COV/obj/libmpshim/core" -name '*.gcda')
# shellcheck disable=SC2086
gcov -n $objects 2> /dev/null | awk -v min="$COVERAGE_MIN" '
/^File / { f = $2; gsub(/\047/, "", f); next }
/^Lines executed/ && f ~ /^libmpshim\/core\/.*\.c$/ {
    split($2, a, ":"); sub("%", "", a[2])
    if (!(f in n)) name[++files] = f
    if ($4 + 0 > n[f]) { n[f] = $4; hit[f] = $4 * a[2] / 100 }
    f = ""
}
/^Lines executed/ { f = "" }
END {
    for (i = 1; i <= files; i++) for (j = i + 1; j <= files; j++) if (name[j] < name[i]) { t = name[i]; name[i] = name[j]; name[j] = t }
    for (i = 1; i <= files; i++) {
        f = name[i]; lines += n[f]; hits += hit[f]
        printf "  %-36s %5.1f %%  of %4d lines\n", f, 100 * hit[f] / n[f], n[f]
    }
    printf "  %-36s %5.1f %%  of %4d lines\n", "core/ in total", lines ? 100 * hits / lines : 0, lines
    exit(!lines || 100 * hits / lines < min)
}'
rc=$?
[ -z "$late" ] || echo "  not counted, over $COVERAGE_TIMEOUT s of a processor:$late"
[ -z "$failed" ] || echo "  failed, so part of this is missing:$failed" >&2
[ $rc = 0 ] && [ -z "$failed" ]
