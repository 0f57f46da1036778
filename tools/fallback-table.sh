#!/bin/sh
# fallback-table.sh: core/fallback.def as a table of states and events, for docs/fallback.md ("make fallback-table").
set -e
cd "$(dirname "$0")/.."
cat <<'HEAD'
# Fallback: state × event

Written by `make fallback-table` from `libmpshim/core/fallback.def`, which is the code. A cell says what is done and the state
that follows; an empty one is refused: the subflow is reset and the state stays. Whatever the table says, a connection that
ever had a second subflow, or that sent data twice, cannot become plain TCP: its subflow is reset instead.

| event | OFFERED | UNCONFIRMED | CONFIRMED | PLAIN |
|---|---|---|---|---|
HEAD
sed -n 's/^X(\([A-Z_]*\), *\([A-Z_]*\), *\([A-Z_]*\), *\([a-z_]*\), *"\(.*\)")$/\1|\2|\3|\4|\5/p' libmpshim/core/fallback.def |
awk -F'|' '
    !($2 in seen) { seen[$2] = 1; order[++n] = $2 }
    { act = $4 == "none" ? "" : $4 " "; gsub("_", " ", act); cell[$2, $1] = act "→ " $3; why[++w] = "- " $1 ", " $2 ": " $5 }
    END {
        for (i = 1; i <= n; i++)
            printf "| %s | %s | %s | %s | %s |\n", order[i], cell[order[i], "OFFERED"], cell[order[i], "UNCONFIRMED"],
                   cell[order[i], "CONFIRMED"], cell[order[i], "PLAIN"]
        print "\n## Why"
        for (i = 1; i <= w; i++) print why[i]
    }'
