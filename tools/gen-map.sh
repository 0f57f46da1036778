#!/bin/sh
# The version script of libmpshim.so, on standard output: it exports the names in DIR/*.def (their lines
# X(type, NAME, ...), see shim/calls.def) and those in DIR/*.map (one a line, # comments), and nothing else.
dir=${1:?usage: gen-map.sh DIR}
names=$(
    for f in "$dir"/calls*.def "$dir"/wrap*.def; do
        [ ! -f "$f" ] || sed -n 's/^X[A-Z_]*(\([^,(]*\),[[:space:]]*\([A-Za-z_][A-Za-z_0-9]*\)[[:space:]]*,.*/\2/p' "$f"
    done
    for f in "$dir"/*.map; do
        [ ! -f "$f" ] || sed 's/#.*//; s/[[:space:];]//g; /^$/d' "$f"
    done
)
[ -n "$names" ] || { echo "gen-map.sh: no names in $dir" >&2; exit 1; }
echo '{'
echo 'global:'
echo "$names" | sort -u | sed 's/.*/    &;/'
echo 'local:'
echo '    *;'
echo '};'
