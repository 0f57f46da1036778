"""The lab's box matrix: the real engine meets the kernel, or itself, through each middlebox of linkem.

    PYTHONPATH=tests python3 -m lab.boxes [--write docs/box-matrix.md] [--jobs N] [--kept FILE] [--box NAME] [--cell ID]

A cell is BOX/ROLES/WAY/SENDER/TIME/IP: which ends are ours ("shim-kernel": the client), the direction that the box works
on (up: the client's packets), who sends, from the start or in mid-connection. The box sits on the first of two paths.
--kept: verdicts go there, one a line, and a run that was interrupted goes on; cells asked for by name are run anew.
"""

import argparse
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from . import topology
from .host import HERE, PYTHON
from .shim import KERNEL, shim
from .traffic import make_file

SIZE = 700_000
STREAM = HERE / "stream.py"
ROLES = ("shim-kernel", "kernel-shim", "shim-shim")
WAYS = {"two-way": "", "up": ",dir=a2b", "down": ",dir=b2a"}
SENDERS, TIMES, FAMILIES = ("server", "client"), ("start", "mid"), (4, 6)
MARK, END = "<!-- lab -->", "<!-- /lab -->"


@dataclass(frozen=True)
class Box:
    """A row. spec: linkem's boxes; may: outcomes; changes: the bytes that plain TCP delivers are its own; ways: directions
    that make a difference (tests/sim/matrix.c has the same)."""
    name: str
    spec: tuple
    may: str = "bo"           # b: both paths, o: one path, p: plain TCP
    changes: bool = False
    within: float = 4
    loss: float = 0
    event: bool = False       # happens once to connections that exist
    link: int = 0
    ways: tuple = tuple(WAYS)

    def ways_of(self, sender):
        """What changes payload leaves the other direction, with the lab's own words, alone."""
        return ({"client": "up", "server": "down"}[sender],) if self.changes else self.ways


def _boxes():
    both, any_way = ("two-way",), tuple(WAYS)
    rows = [Box("none", ("delay,hold=1ns",), ways=both)]
    for name, ways in ("strip-syn", ("up",)), ("strip-synack", ("down",)), ("strip-nonsyn", any_way), ("strip-all", any_way):
        rows += [Box(name, (name,), "bop", ways=ways), Box(name + "-cut", (name + ",cut",), "bop", ways=ways)]
    rows += [
        Box("drop-syn", ("drop-syn",), "bop"),
        Box("strip-add-addr", ("strip-add-addr",)), Box("strip-add-addr-cut", ("strip-add-addr,cut",)),
        Box("strip-join", ("strip-join",), link=1), Box("drop-join", ("drop-join",), link=1),
        Box("answer", ("answer",), "bop", ways=both),
        Box("nat", ("nat,{nat}",), ways=both),
        Box("nat-rebind", ("nat-rebind,{nat}",), event=True, within=6, ways=both),
        Box("nat-expire", ("nat-expire,{nat}",), event=True, within=6, ways=both),
        Box("seq", ("seq",), loss=0.005, within=6), Box("seq-no-sack", ("seq-no-sack",), loss=0.005, within=6),
        Box("split", ("split",)), Box("split-first", ("split-first",)),
        Box("merge", ("mss,size=700", "merge,size=1400,hold=2ms")),
        Box("merge-any", ("mss,size=700", "merge-any,size=1400,hold=2ms"), "bop"),
        Box("merge-any-once", ("mss,size=700", "merge-any,size=1400,hold=2ms,most=1"), "bop"),
        Box("payload", ("payload",), "bop", changes=True),
        Box("payload-100", ("payload,nth=100,first=20",), "bop", changes=True),
        Box("alg", ("mss,size=1300", "alg,size=5,first=5"), "bop", changes=True),
        Box("alg-shrink", ("alg-shrink,size=5,first=5",), "bop", changes=True),
        Box("proxy", ("proxy",), "bop"),
        Box("holes", ("holes",), loss=0.005, within=6), Box("ack-unseen", ("ack-unseen",), loss=0.005),
        Box("clamp", ("clamp,size=16000",)), Box("mss", ("mss,size=700",)),
        Box("strip-ts", ("strip-ts",)), Box("strip-ts-cut", ("strip-ts,cut",)), Box("strip-sack-ok", ("strip-sack-ok",), loss=0.005), Box("strip-sack", ("strip-sack",), loss=0.005),
        Box("strip-wscale", ("strip-wscale",), within=8),
        Box("opt-order", ("opt-order",)), Box("opt-dup", ("opt-dup",)),
        Box("dup", ("dup,nth=3,hold=3ms",)), Box("delay", ("delay,hold=200ms",), within=10),
        Box("reorder", ("reorder,nth=7,hold=15ms",)), Box("corrupt", ("corrupt,nth=50",), within=6),
        Box("big", ("big,size=1300",), within=10), Box("big-icmp", ("big-icmp,size=1300",)),
        Box("icmp-lies", ("icmp-lies,nth=20",)),
    ]
    return {row.name: row for row in rows}


BOXES = _boxes()

# What the kernel does at its end, now and then; nothing that we send has been found to help it.
_JOINED = "the kernel, receiving over two paths, takes what was joined to a mapped segment for the bytes that follow in the stream"


@dataclass(frozen=True)
class Cell:
    box: Box
    roles: str
    way: str
    sender: str
    when: str
    family: int

    def __str__(self):
        return f"{self.box.name}/{self.roles}/{self.way}/{self.sender}/{self.when}/v{self.family}"

    @property
    def meets_data(self):
        """The box works on what is sent, not only on what acknowledges it."""
        return len(self.box.ways) == 1 or self.way in ("two-way", {"client": "up", "server": "down"}[self.sender])


def cell_of(text):
    name, roles, way, sender, when, family = text.split("/")
    return Cell(BOXES[name], roles, way, sender, when, int(family[1:]))


@dataclass
class Verdict:
    outcome: str              # both, one, plain; failed
    seconds: float
    why: str = ""             # what failed, or the reason of the fallback
    changed: bool = False     # plain TCP delivered what the box had made of the bytes


class Arena:
    """A lab with a server of each kind, for many cells one after the other."""

    def __init__(self, size=SIZE, rate="20M"):
        self.net = topology.two_path(rate=rate, delay="10ms", queue="60ms")
        self.file = make_file(size, seed=7)
        client, server = self.net.client, self.net.server
        for host in client, server:          # the kernel gives MPTCP up for an hour after one silent SYN
            host.sysctl({"mptcp/blackhole_timeout": 0})
        lladdr = json.loads(client.run(["ip", "-j", "link", "show", "eth0"]).stdout)[0]["address"]
        for address in "10.10.1.9", "fd00:10:1::9":
            server.ip("neigh", "replace", address, "lladdr", lladdr, "dev", "eth0", "nud", "permanent")
        self.cells = 0
        self.log = Path(server.scratch("log-"), "log")
        self._serve(8000, (), "--mptcp")
        self._serve(8001, shim("-v", f"--log={self.log}"))

    def _serve(self, port, wrap, *options):
        process = self.net.server.popen([*wrap, PYTHON, STREAM, "serve", str(port), self.file.path, *options], stdout=-1)
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("stream.py does not serve")

    def close(self):
        self.net.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def _set_box(self, cell):
        link, box = self.net.link[cell.box.link], cell.box
        after = {"after": "150k" if cell.when == "mid" else "20k"} if cell.when == "mid" or box.event else {}
        self.cells += 1                      # a NAT that starts anew does not give out the ports of connections just closed
        nat = f"nat={'10.10.1.9' if cell.family == 4 else 'fd00:10:1::9'},first={self.cells * 16 % 16000}"
        link.set(loss=box.loss)
        # What makes room for a box, an MSS clamp, works from the start.
        helpers = box.spec[:-1]
        tail = "".join(f",{key}={value}" for key, value in after.items())
        link.hook(*helpers, box.spec[-1].replace("{nat}", nat) + tail + WAYS[cell.way])
        return link

    def _told_by_server(self, before):
        if not self.log.exists():
            return ""
        with self.log.open() as log:
            log.seek(before)
            return log.read()

    def run(self, cell):
        link, box = self._set_box(cell), cell.box
        client, server = self.net.client, self.net.server
        ours, theirs = cell.roles.split("-")
        wrap = shim("-v") if ours == "shim" else KERNEL
        before = self.log.stat().st_size if self.log.exists() else 0
        for host in client, server:           # path MTUs that an earlier cell's ICMP taught
            for family in "-4", "-6":
                host.ip(family, "route", "flush", "cache")
        traffic = client.traffic()
        command = ["put" if cell.sender == "client" else "get", server.address(0, cell.family), "8001" if theirs == "shim" else "8000"]
        command += [str(self.file.path)] if cell.sender == "client" else []
        try:
            done = client.run(["timeout", str(box.within + 3), *wrap, PYTHON, STREAM, *command], check=False, timeout=30)
        finally:
            moved = {name: sum(now) - sum(traffic[name]) for name, now in client.traffic().items()}
            acted = sum(s["hook_changes"] + s["hook_drops"] for s in link.stats().values())
            link.hook()
            link.set(loss=0)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if not lines:
            why = f"no end within {box.within + 3} s" if done.returncode == 124 else f"no answer, status {done.returncode}"
            return Verdict("failed", box.within + 3, f"{why}; {done.stderr[-300:]}")
        if theirs == "shim" and ours != "shim":
            time.sleep(0.02)                  # the log's line follows the connection's end
        told = done.stderr if ours == "shim" else self._told_by_server(before)
        return self._judge(cell, json.loads(lines[-1]), told, moved, acted)

    def _judge(self, cell, said, told, moved, acted):
        box, seconds = cell.box, said["seconds"]
        plain = [line for line in told.splitlines() if "plain TCP" in line]
        reason = plain[-1].split("plain TCP: ")[-1] if plain else ""
        both = all(moved[name] > 0.1 * self.file.size for name in ("eth0", "eth1"))
        outcome = "plain" if plain else "both" if both else "one"
        if said.get("error"):
            return Verdict("failed", seconds, f"{outcome}: {said['error']}; {told[-300:]}")
        whole = said["sha256"] == self.file.sha256
        receiver = cell.roles.split("-")[cell.sender == "client"]
        # The kernel's own way of falling back delivers what came; we may not have heard of it.
        if not whole and not (box.changes and (plain or receiver == "kernel")):
            return Verdict("failed", seconds, f"{outcome}: {said['bytes']} bytes, of which not all are right; {told[-300:]}")
        if seconds > box.within:
            return Verdict("failed", seconds, f"{outcome}: later than {box.within} s; {told[-300:]}")
        if outcome[0] not in box.may:
            return Verdict("failed", seconds, f"became {outcome}: {reason}")
        if not acted and cell.meets_data and cell.when == "start" and not box.loss and box.name != "corrupt":
            return Verdict("failed", seconds, "the box never acted")
        return Verdict(outcome, seconds, reason, not whole)


def known(cell):
    """Why this cell may fail, or None. It depends on the moment: behind a busy machine one in six, else seldom."""
    ends = cell.roles.split("-")
    receiver = ends[cell.sender == "client"]
    if cell.box.name.startswith("merge-any") and receiver == "kernel" and cell.when == "mid":
        return _JOINED
    return None


def moderate_cells():
    """Each box with the kernel as server and as client, who sends, when and which way by turns; some with both ends ours, some IPv6."""
    for i, box in enumerate(BOXES.values()):
        when = TIMES[i // 2 % 2]
        for roles, sender, family in ("shim-kernel", SENDERS[i % 2], 4), ("kernel-shim", SENDERS[(i + 1) % 2], 4), ("shim-shim", SENDERS[i % 2], 6):
            ways = box.ways_of(sender)
            if roles != "shim-shim" or i % 4 == 0:
                yield Cell(box, roles, ways[(i // 4 + (roles == "kernel-shim")) % len(ways)], sender, when, family)


def all_cells():
    for box in BOXES.values():
        for roles in ROLES:
            for sender in SENDERS:
                for way in box.ways_of(sender):
                    for when in TIMES:
                        for family in FAMILIES:
                            yield Cell(box, roles, way, sender, when, family)


# -- the table

def summary(results):
    count = {name: sum(v.outcome == name for v in results.values()) for name in ("both", "one", "plain", "failed")}
    changed = sum(v.changed for v in results.values())
    faults = sum(v.outcome == "failed" and bool(known(cell)) for cell, v in results.items())
    return (f"{len(results)} cells: multipath kept in {count['both'] + count['one']} (both paths carried a tenth or more in {count['both']}), "
            f"{count['plain']} fell back to plain TCP (in {changed} of these it delivered payload as the box had changed it), "
            f"{count['failed']} failed" + (f" ({faults} of them known)" if faults else ""))


def counts(verdicts):
    return ", ".join(str(sum(v.outcome == name for v in verdicts)) for name in ("both", "one", "plain", "failed"))


def table(results):
    lines = ["| box | " + " | ".join(f"{roles}: both, one, plain, failed | s" for roles in ROLES) + " | reasons |",
             "|---|" + "---|---|" * len(ROLES) + "---|"]
    for box in BOXES.values():
        row, reasons = [], []
        for roles in ROLES:
            mine = [v for cell, v in results.items() if cell.box is box and cell.roles == roles]
            if not mine:
                break
            row.append(counts(mine))
            row.append(f"{max(v.seconds for v in mine):.2f}")
            reasons += [v.why.split(" over eth")[0] for v in mine if v.why and v.outcome == "plain"]
            reasons += [f"failed: {known(cell)}" for cell, v in results.items() if v in mine and v.outcome == "failed" and known(cell)]
        else:
            lines.append(f"| `{box.name}` | " + " | ".join(row) + " | " + "; ".join(sorted(set(reasons))) + " |")
    return lines


def by_direction(results):
    lines = ["| direction, time, IP version | " + " | ".join(f"{roles}: both, one, plain, failed" for roles in ROLES) + " |",
             "|---|" + "---|" * len(ROLES)]
    for way in WAYS:
        for when in TIMES:
            for family in FAMILIES:
                row = []
                for roles in ROLES:
                    mine = [v for c, v in results.items() if (c.way, c.when, c.family, c.roles) == (way, when, family, roles)]
                    row.append(counts(mine))
                lines.append(f"| {way}, {when}, IPv{family} | " + " | ".join(row) + " |")
    return lines


def write(path, results):
    """Puts the lab's part behind the simulated one, or in its old place."""
    text = Path(path).read_text() if Path(path).exists() else ""
    if MARK in text:
        text = text[:text.index(MARK)] + text[text.index(END) + len(END):].lstrip("\n")
    part = [MARK, "", "## In the lab", "",
            "Written by `make matrix-lab` (`tests/lab/boxes.py`): the real engine over emulated links, against the kernel's MPTCP as server and",
            "as client, and against itself. The same boxes on the first of two paths of 20 Mbit/s, 20 ms × the direction that they work on (two",
            f"ways, up: the client's packets, down) × who sends {SIZE / 1e6} MB × from the start or from mid-connection × IPv4/IPv6; what changes payload",
            "works on the sender's; ALG and coalescing boxes sit behind an MSS clamp, to have room. Numbers are cells, s the slowest one's seconds.",
            "", summary(results), "", *by_direction(results), "", *table(results), "", END, ""]
    Path(path).write_text(text.rstrip("\n") + "\n\n" + "\n".join(part))


def run_all(cells, jobs, tell):
    """In as many labs side by side; a cell mostly waits."""
    todo, lock = iter(cells), threading.Lock()

    def work(_):
        with Arena() as arena:
            while True:
                with lock:
                    cell = next(todo, None)
                if cell is None:
                    return
                verdict = arena.run(cell)
                with lock:
                    tell(cell, verdict)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(work, range(jobs)))


def read_kept(path):
    lines = path.read_text().splitlines() if path and path.exists() else []
    known_cells = {str(cell): cell for cell in all_cells()}
    rows = [json.loads(line) for line in lines]
    return {known_cells[row.pop("cell")]: Verdict(**row) for row in rows if row["cell"] in known_cells}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--kept", type=Path)
    parser.add_argument("--box", action="append")
    parser.add_argument("--cell", action="append")
    options = parser.parse_args()
    named = [cell_of(text) for text in options.cell or ()] + [c for c in all_cells() if c.box.name in (options.box or ())]
    results = read_kept(options.kept)
    cells = named or [c for c in all_cells() if c not in results]

    def tell(cell, v):
        results[cell] = v
        if options.kept:
            with options.kept.open("a") as file:
                print(json.dumps({"cell": str(cell), **asdict(v)}), file=file)
        if v.outcome == "failed" or named:
            print(f"{str(cell):52} {v.outcome:7} {v.seconds:6.3f} s  {v.why}", flush=True)

    run_all(cells, options.jobs, tell)
    results = {cell: results[cell] for cell in all_cells() if cell in results}
    print("matrix-lab:", summary(results))
    if options.write:
        write(options.write, results)
    return any(v.outcome == "failed" and not known(cell) for cell, v in results.items())


if __name__ == "__main__":
    sys.exit(main())
