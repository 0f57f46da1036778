"""The application matrix: `make apps`.

    PYTHONPATH=tests python3 -m apps [--write FILE] [--role ROLE] [NAME...]

Each program runs unmodified over two emulated paths of 50 Mbit/s, 20 ms: as client
against the kernel's MPTCP, as server for it, and on both sides. A cell is good when
the program succeeded, the data are the same, both paths carried at least a tenth of
it, and the kernel's MPTCP counters tell of no fallback, reset or checksum error.
Status 1: a cell is not.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass

from lab import make_file, two_path
from lab.shim import Watch, engines

from . import clients, pairs, servers
from .place import MPTCP_RUN, Place, ROLES, Wrong

SIZE = 6_000_000
SHARE = 0.1


@dataclass
class Cell:
    ok: bool
    text: str
    seconds: float = 0
    shares: tuple = (0, 0)


def find(program):
    return shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin") or program == "postgres" and os.path.isdir("/usr/lib/postgresql")


def run_cell(run, role, engine):
    """One program in one role. What the kernel's counters say against it counts only where the kernel alone does better:
    aria2 resets its connections at the end, for instance."""
    started = time.monotonic()
    wrong, moved, bad = run_once(run, role, engine)
    if not wrong and min(moved) < SHARE * SIZE:
        wrong = f"one path only: {moved} bytes"
    if not wrong and bad and not alone_too(run, kinds(bad)):
        wrong = f"kernel counters: {bad}"
    shares = tuple(round(100 * n / max(1, sum(moved))) for n in moved)
    return Cell(not wrong, wrong or f"{shares[0]}:{shares[1]}", time.monotonic() - started, shares)


def kinds(bad):
    """The names of counters, of whichever host and direction; a fast close comes with a reset."""
    return {name.split()[1].replace("Tx", "").replace("Rx", "").replace("MPRst", "MPFastclose") for name in bad}


def alone_too(run, seen):
    """The kernel's counters say as much against the kernel alone. What a program resets at its end (wrk, in mid-answer) is chance:
    a run of several may have none of it. One that breaks off says nothing of the part that it did not reach."""
    found = set()
    for _ in range(4):
        wrong, _, bad = run_once(run, "kernel", None)
        found |= set() if wrong else kinds(bad)
        if seen <= found:
            return True
    return False


def run_once(run, role, engine):
    """What went wrong, the bytes over each path, and the counters that should be zero."""
    file = make_file(SIZE)
    with two_path(families="both") as lab:
        place = Place(lab, role, file, engine)
        with Watch(lab) as seen:
            try:
                run(place)
                wrong = ""
            except (Wrong, subprocess.SubprocessError, RuntimeError, OSError, KeyError, ValueError, IndexError) as error:
                wrong = f"{type(error).__name__ if not isinstance(error, Wrong) else ''} {str(error)[-500:]} [{place.tail()}]".strip()
        moved = [seen.moved(lab.client, f"eth{i}") for i in (0, 1)]
        bad = {f"{host.role} {key}": value for host in (lab.client, lab.server) for key, value in seen.bad(host).items()}
    return wrong, moved, bad


def all_apps():
    return [*(("fetches from nginx", *row) for row in clients.APPS), *(("serves curl", *row) for row in servers.APPS),
            *(("both its own", *row) for row in pairs.APPS)]


HEAD = """\
# The application matrix

Written by `make apps` (`tests/apps`). Each program runs unmodified over two emulated paths of 50 Mbit/s, 20 ms round trip:
as client under mptcp-run against a server on the kernel's MPTCP, as server under mptcp-run for a client on the kernel's
MPTCP, and with mptcp-run on both sides. In a good cell the program succeeded, {size} MB (or a multiple) came whole, both
paths carried at least a tenth, and the kernel's counters tell of no fallback, reset or checksum error. The numbers are the
paths' shares in per cent. nginx is the server of the first group, curl (or socat, ncat) the client of the second.

{total} cells, {good} good

| program | version | client | server | both |
|---|---|---|---|---|
"""

VERSION = {"curl": "curl --version", "wget": "wget --version", "aria2c": "aria2c --version", "python3": "/usr/bin/python3 --version", "node": "node --version",
           "perl": "perl -e 'print $^V'", "java": "java --version", "bash": "bash --version", "openssl": "openssl version", "socat": "socat -V | sed -n 2p",
           "ncat": "ncat --version 2>&1", "busybox": "busybox | head -1", "git": "git --version", "nginx": "/usr/sbin/nginx -v 2>&1", "haproxy": "haproxy -v",
           "apache2": "/usr/sbin/apache2 -v", "xinetd": "/usr/sbin/xinetd -version 2>&1", "ssh": "ssh -V 2>&1", "scp": "ssh -V 2>&1", "rsync": "rsync --version",
           "iperf3": "iperf3 --version", "redis-server": "redis-server --version", "psql": "psql --version", "wrk": "wrk -v 2>&1", "ab": "ab -V",
           "systemd-socket-activate": "systemd-socket-activate --version"}


def version(program):
    said = subprocess.run(VERSION.get(program, ":"), shell=True, capture_output=True, text=True, env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin"}).stdout
    import re
    found = re.search(r"\d+(\.\d+)+[\w.-]*", said)
    return found[0] if found else ""


def write(path, rows):
    cells = [cell for _, _, _, _, row in rows for cell in row.values()]
    with open(path, "w") as out:
        out.write(HEAD.format(size=SIZE // 1_000_000, total=len(cells), good=sum(cell.ok for cell in cells)))
        group = None
        for kind, name, needs, options, row in rows:
            if kind != group:
                group = kind
                out.write(f"| *{kind}* | | | | |\n")
            texts = [(row[role].text.replace("|", "/").replace("\n", " ")[:160] if not row[role].ok else row[role].text) if role in row else "" for role in ROLES]
            marks = [("**no**: " + text if role in row and not row[role].ok else text) for role, text in zip(ROLES, texts)]
            out.write(f"| {name} | {version(needs[0])} | {' | '.join(marks)} |\n")
        notes = [f"- {name}: {options.get('note') or options.get('unchecked')}.\n" for _, name, _, options, _ in rows if options.get("note") or options.get("unchecked")]
        out.write("\n" + "".join(notes) if notes else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", metavar="FILE", help="the table, as Markdown")
    parser.add_argument("--role", choices=ROLES, action="append", help="only this one")
    parser.add_argument("--engine", choices=("inside", "helper"), help="mptcp-run's --engine")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("names", nargs="*", metavar="NAME", help="the start of a program's name")
    options = parser.parse_args()
    chosen = [row for row in all_apps() if not options.names or any(row[1].startswith(name) for name in options.names)]
    if options.list:
        print("\n".join(f"{row[1]:40} {' '.join(row[3])}" for row in chosen))
        return 0
    if os.geteuid() or not MPTCP_RUN.exists():
        print("apps needs root, to make network namespaces, and a build (./configure && make)", file=sys.stderr)
        return 2
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    rows, good, total, missing = [], 0, 0, []
    for kind, name, needs, roles, run, more in chosen:
        absent = [program for program in needs if not find(program)]
        if absent:
            missing.append(f"{name} ({', '.join(absent)})")
            continue
        row = {}
        for role in roles:
            if options.role and role not in options.role:
                continue
            cell = row[role] = run_cell(run, role, options.engine)
            total += 1
            good += cell.ok
            print(f"{name:40} {role:7} {'ok' if cell.ok else 'FAILED':7} {cell.seconds:5.1f} s  {cell.text}", flush=True)
        rows.append((kind, name, needs, more, row))
    if options.write:
        write(options.write, rows)
    print(f"{total} cells, {good} good" + (f"; not installed: {'; '.join(missing)}" if missing else ""))
    return good != total


if __name__ == "__main__":
    sys.exit(main())
