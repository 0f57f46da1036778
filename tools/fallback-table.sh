#!/bin/sh
# fallback-table.sh: core/fallback.def as a table of states and events, for docs/fallback.md ("make fallback-table").
set -e
cd "$(dirname "$0")/.."
cat <<'HEAD'
# Fallback: state × event

Written by `make fallback-table` from `libmpshim/core/fallback.def`, which is the code. A cell says what is done and the state
that follows, or by a letter why it cannot be reached. Whatever the table says, a connection that ever had a second subflow, or
that sent data twice, cannot become plain TCP: its subflow is reset instead.

`tests/unit/mp_fallback.c` reaches each cell by packets, and sees that the core asks the table for no other; what cannot be
reached would reset the subflow and count `fallback_strange`, which no simulated run may do (`libmpshim/sim/scen_check.c`).

| event | OFFERED | UNCONFIRMED | CONFIRMED | PLAIN |
|---|---|---|---|---|
HEAD
def=libmpshim/core/fallback.def
{
    sed -n 's/^X(\([A-Z_]*\), *\([A-Z_]*\), *\([A-Z_]*\), *\([a-z_]*\), *"\(.*\)")$/X|\1|\2|\3|\4|\5/p' $def
    sed -n 's/^NEVER(\([A-Z_]*\), *\([A-Z_]*\), *\([a-z]\))$/N|\1|\2|\3/p; s/^REASON(\([a-z]\), "\(.*\)")$/R|\1|\2/p' $def
} | awk -F'|' '
    $1 == "R" { reason[++r] = "- " $2 ": " $3; next }
    !($3 in seen) { seen[$3] = 1; order[++n] = $3 }
    $1 == "N" { cell[$3, $2] = $4; next }
    { act = $5 == "none" ? "" : $5 " "; gsub("_", " ", act); cell[$3, $2] = act "→ " $4; why[++w] = "- " $2 ", " $3 ": " $6 }
    END {
        for (i = 1; i <= n; i++)
            printf "| %s | %s | %s | %s | %s |\n", order[i], cell[order[i], "OFFERED"], cell[order[i], "UNCONFIRMED"],
                   cell[order[i], "CONFIRMED"], cell[order[i], "PLAIN"]
        print "\n## Why"
        for (i = 1; i <= w; i++) print why[i]
        print "\n## Why not"
        for (i = 1; i <= r; i++) print reason[i]
    }'
