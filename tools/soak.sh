#!/bin/sh
# What "make soak" runs: SEEDS (2000) more random simulations (tests/sim/property.c) from where the last run ended, in
# blocks of 500, niced (NICE); each block is added to the totals in docs/soak.md, so that a run can be stopped and resumed at any
# time. FROM=N begins there instead; without that file all is counted from there on. Violations are told with their seed, and
# listed there until their seeds pass.
cd "$(dirname "$0")/.." || exit
SEEDS=${SEEDS:-2000} BLOCK=${BLOCK:-500} program=${SOAK_PROGRAM:-build/tests/sim_property} doc=docs/soak.md
[ -x "$program" ] || { echo "$program is not built: make soak" >&2; exit 2; }
first=${FROM:-1}
[ -f $doc ] || cat > $doc << END
# Simulation at length

\`make soak SEEDS=10000\` goes on where the last run ended; this file is written by it. Each seed is one random network
([testing.md](testing.md)); what must hold is said in \`tests/sim/property.c\` and \`libmpshim/sim/watch.h\`.

seeds: $first to $((first - 1))
runs: 0
packets: 0
longest time without progress in a working network: 0.0 s
violations: 0
excused: 0

## Violations

END
value() { sed -n "s/^$1: \(.*\)/\1/p" $doc; }
last=$(value seeds | sed 's/.* to //')
next=${FROM:-$((last + 1))} end=$((${FROM:-$((last + 1))} + SEEDS - 1)) status=0
log=$(mktemp) || exit
trap 'rm -f "$log"' EXIT
while [ "$next" -le $end ]; do
    to=$((next + BLOCK - 1))
    [ $to -le $end ] || to=$end
    MPSHIM_SIM_SEEDS=$next..$to nice -n "${NICE:-19}" "$program" > "$log" 2>&1 || status=1
    tail -n 1 "$log"
    grep '^seed ' "$log"
    # sim_property: seeds A..B, N with several subflows, N packets, N excused, longest stall N s, N failed
    # shellcheck disable=SC2046 # four words
    set -- $(sed -n 's/^sim_property: .* subflows, \([0-9]*\) packets, \([0-9]*\) excused, longest stall \([0-9.]*\) s, \([0-9]*\) failed/\1 \3 \4 \2/p' "$log")
    [ $# = 4 ] || { echo "seeds $next..$to: the program ended before its time" >&2; cat "$log" >&2; exit 1; }
    [ $to -le "$last" ] || last=$to
    awk -v last="$last" -v ran=$((to - next + 1)) -v packets="$1" -v stall="$2" -v failed="$3" -v excused="$4" '
        /^seeds: / { $NF = last }
        /^runs: / { $0 = "runs: " $2 + ran }
        /^packets: / { $0 = "packets: " sprintf("%.0f", $2 + packets) }
        /^longest time/ { t = $(NF - 1); if (stall + 0 > t + 0) t = stall; sub(/[0-9.]+ s$/, sprintf("%.1f s", t)) }
        /^violations: / { $0 = "violations: " $2 + failed }
        /^excused: / { $0 = "excused: " $2 + excused }
        { print }' $doc > "$doc.new" && mv "$doc.new" $doc
    grep '^seed ' "$log" | sed 's/^/- /' >> $doc
    next=$((to + 1))
done
exit $status
