#!/bin/sh
# Builds the Debian package from a copy of the source tree, so that the tree's own configuration stays: build/deb/*.deb
set -e
cd "$(dirname "$0")/.."
command -v dpkg-buildpackage > /dev/null || { echo "needs dpkg-buildpackage: apt-get install dpkg-dev" >&2; exit 1; }
out=build/deb
rm -rf $out
mkdir -p $out/src
if git rev-parse --git-dir > /dev/null 2>&1; then
    git ls-files | while IFS= read -r f; do [ ! -e "$f" ] || echo "$f"; done > $out/list
else
    find . -path ./build -prune -o -type f -print > $out/list
fi
tar -c -T $out/list | tar -x -C $out/src
log=$out/log
(cd $out/src && dpkg-buildpackage -us -uc -b) > $log 2>&1 || { tail -n 40 $log >&2; exit 1; }
ls $out/*.deb
