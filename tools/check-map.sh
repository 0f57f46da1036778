#!/bin/sh
# docs/architecture.md names each file of libmpshim/, and none that is not there.
cd "$(dirname "$0")/.." || exit
named=$(mktemp) there=$(mktemp)
trap 'rm -f "$named" "$there"' EXIT
# Within a section, names are relative to its folder; a tool's parts follow "in `folder`:".
awk '
/^### / { split($2, a, "[:,]"); dir = a[1] ~ /^(core|io|engine|shim|sim)$/ ? a[1] "/" : "" }
/^## / { inside = $2 == "Files" }
inside && /^\|/ {
    base = dir
    while (match($0, /`[^`]*`/)) {
        name = substr($0, RSTART + 1, RLENGTH - 2)
        $0 = substr($0, RSTART + RLENGTH)
        if (name ~ /\/$/) base = name
        else if (name ~ /^[a-z0-9_\/-]+\.(c|h|def|sh|map)$/) print base name
    }
}' docs/architecture.md | sort -u > "$named"
(cd libmpshim && find . -type f -name '*.[ch]' -o -type f -name '*.def' -o -type f -name '*.sh' -o -type f -name '*.map') | sed 's|^\./||' | sort > "$there"
bad=$(comm -3 "$named" "$there" | sed 's/^\t/not named: libmpshim\//; t; s/^/named and not there: libmpshim\//')
[ -z "$bad" ] || { echo "docs/architecture.md, Files:"; echo "$bad"; exit 1; } >&2
echo "file map: complete"
