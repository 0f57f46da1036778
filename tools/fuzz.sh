#!/bin/sh
# libFuzzer on the targets of tests/fuzz: tools/fuzz.sh [TARGET]... ; FUZZ_SECONDS each (60), one worker, niced.
# What is found lies in build/fuzz/found, new inputs in build/fuzz/corpus; --keep merges those into tests/fuzz/corpus,
# minimised. Adds executions and processor time, which says the same on a busy machine, to docs/fuzzing.md.
cd "$(dirname "$0")/.." || exit
seconds=${FUZZ_SECONDS:-60} out=${FUZZ_BUILD:-build/fuzz} keep=0
[ "$1" != --keep ] || { keep=1; shift; }
targets=${*:-packet sequence control settings conf opt}
CLANG=${CLANG:-clang}
command -v "$CLANG" > /dev/null || { echo "fuzzing needs clang and libclang-rt-dev" >&2; exit 1; }
mkdir -p "$out/found" docs
flags="-std=c17 -D_GNU_SOURCE= -g -O1 -fno-omit-frame-pointer -pthread -Ilibmpshim -Itests/unit -Itests/fuzz"
flags="$flags -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined"
core=$(ls libmpshim/core/*.c libmpshim/core/*/*.c)
engine=$(find libmpshim/engine -name '*.c' ! -name "helper_*.c")

build() # TARGET
{
    case $1 in
    control) flags="$flags -DMOVE_LAYOUT=1u" more="$engine $core" libs="-lev -lmnl -ljansson" ;;
    conf) more="libmpshim/tools/mptcp-run/files.c libmpshim/tools/mptcp-run/settings.c libmpshim/shim/rules.c" libs=-linih ;;
    packet|sequence) more="tests/fuzz/lib/world.c libmpshim/sim/text.c libmpshim/sim/sim.c $core" libs= ;;
    *) more=$core libs= ;;
    esac
    # shellcheck disable=SC2086
    nice -n 10 "$CLANG" $flags -o "$out/$1" "tests/fuzz/$1.c" $more $libs -lcrypto -lm
}

most() { case $1 in opt) echo 41 ;; settings) echo 64 ;; control|conf) echo 2048 ;; *) echo 1024 ;; esac; }

# The totals: one row a target, "| name | executions | hours | inputs kept |".
account() # TARGET EXECUTIONS SECONDS
{
    doc=docs/fuzzing.md
    [ -f $doc ] || printf '# Fuzzing\n\n`make fuzz` runs libFuzzer with ASan and UBSan on the targets of `tests/fuzz`; `make check` replays the inputs kept in\n`tests/fuzz/corpus`. This table is written by tools/fuzz.sh.\n\n| target | executions | hours | inputs kept |\n|---|---|---|---|\n' > $doc
    awk -v t="$1" -v n="$2" -v s="$3" -v k="$(ls "tests/fuzz/corpus/$1" 2> /dev/null | wc -l)" -F ' *[|] *' '
        $2 == t && NF == 6 { n += $3; s += $4 * 3600; seen = 1; row(); next }
        { print }
        END { if (!seen) row() }
        function row() { printf "| %s | %d | %.2f | %d |\n", t, n, s / 3600, k }' $doc > $doc.new && mv $doc.new $doc
}

# Seconds of processor time of all that this shell has waited for.
spent()
{
    times > "$out/times" # not in a subshell: that has waited for nobody
    cpu=$(sed -n '2s/[ms]/ /gp' "$out/times" | awk '{ printf "%d", $1 * 60 + $2 + $3 * 60 + $4 }')
}

status=0
for t in $targets; do
    build "$t" || exit
    mkdir -p "$out/corpus/$t" "tests/fuzz/corpus/$t"
    spent
    begin=$cpu
    nice -n 19 timeout $((seconds + 120)) "$out/$t" -max_total_time="$seconds" -max_len="$(most "$t")" -timeout=20 -rss_limit_mb=2000 \
        -print_final_stats=1 -artifact_prefix="$out/found/$t-" "$out/corpus/$t" "tests/fuzz/corpus/$t" > "$out/$t.log" 2>&1 || status=1
    n=$(sed -n 's/^stat::number_of_executed_units: *//p' "$out/$t.log")
    spent
    cpu=$((cpu - begin))
    account "$t" "${n:-0}" $cpu
    echo "$t: ${n:-0} executions in $cpu s of processor time"
    grep -h -e 'invariant broken' -e ERROR -e 'runtime error' -e 'Test unit written' "$out/$t.log"
    [ $keep = 1 ] || continue
    rm -rf "$out/merged" && mkdir -p "$out/merged"
    "$out/$t" -merge=1 -max_len="$(most "$t")" "$out/merged" "tests/fuzz/corpus/$t" "$out/corpus/$t" > "$out/$t.merge.log" 2>&1
    find "$out/merged" -type f -printf '%s %f\n' | sort -n | head -n 300 | while read -r size f; do [ -f "tests/fuzz/corpus/$t/$f" ] || cp "$out/merged/$f" "tests/fuzz/corpus/$t/"; done
done
exit $status
