"""What the kernel's TCP and MPTCP do in the lab, to compare with.

    PYTHONPATH=tests python3 -m lab.baseline [-n 5] [--json FILE] [CASE...]

Each case is a network, a size, and perhaps an event during the transfer; each
carrier is a way to carry the same client and server programs. For a comparison
call measure() with a carrier of your own: Carrier("libmpshim", wrap=["mptcp-run"]).
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import Callable, Optional

from .topology import two_path
from .traffic import make_file, start_fetch

MB, GB = 1_000_000, 1_000_000_000


@dataclass(frozen=True)
class Carrier:
    """How client and server programs are run. The server speaks kernel MPTCP
    unless told otherwise, which also serves plain TCP clients."""
    name: str
    client: dict = field(default_factory=dict)         # options of start_fetch()
    server: dict = field(default_factory=dict)         # options of spawn_http()


TCP = Carrier("kernel TCP", {"mptcp": False}, {"mptcp": False})
MPTCP = Carrier("kernel MPTCP", {"mptcp": True}, {"mptcp": True})
CARRIERS = (TCP, MPTCP)


@dataclass(frozen=True)
class Case:
    """One network and transfer. event(lab) is called event_at seconds after the start."""
    name: str
    lab: dict
    size: int
    directions: tuple = ("down", "up")
    event: Optional[Callable] = None
    event_at: float = 1.0
    carriers: tuple = CARRIERS
    note: str = ""


def path0_down(lab):
    lab.client.link_down(0)


def path0_blackhole(lab):
    lab.link[0].blackhole()


CASES = {case.name: case for case in (
    Case("equal", dict(rate="50M", delay="10ms"), 40 * MB, note="2 x 50 Mbit/s, 20 ms RTT"),
    Case("unequal", dict(rate=["20M", "10M"], delay=["10ms", "40ms"]), 24 * MB,
         note="20 Mbit/s 20 ms + 10 Mbit/s 80 ms RTT"),
    Case("lossy", dict(rate="50M", delay="5ms", loss=[0, 0.01]), 40 * MB,
         note="2 x 50 Mbit/s, 10 ms RTT, 1 % loss on the second"),
    Case("lossy-first", dict(rate="50M", delay="5ms", loss=[0.01, 0]), 40 * MB,
         note="the same, 1 % loss on the first"),
    Case("link-down", {}, 40 * MB, event=path0_down, carriers=(MPTCP,),
         note="equal; the client's first interface goes down after 1 s"),
    Case("blackhole", {}, 40 * MB, event=path0_blackhole, carriers=(MPTCP,),
         note="equal; the first path swallows everything after 1 s"),
    Case("direct-offloads", dict(direct=True), 16 * GB, ("down",), note="plain veth, offloads on"),
    Case("direct", dict(direct=True, offloads=False), 4 * GB, ("down",), note="plain veth, offloads off"),
)}


def run_once(case, carrier, direction):
    """One transfer in a lab of its own: a dictionary of what was measured."""
    with two_path(**case.lab) as lab:
        server = lab.server.spawn_http("/tmp", **carrier.server)
        cpu = server.cpu_seconds()
        if direction == "up":
            running = start_fetch(lab.client, server.url("x"), put=make_file(case.size), digest=False, **carrier.client)
        else:
            running = start_fetch(lab.client, server.url(f"size/{case.size}"), digest=False, **carrier.client)
        if case.event:
            time.sleep(case.event_at)
            case.event(lab)
        transfer = running.result(check=False)
        cpu = server.cpu_seconds() - cpu + transfer.cpu_s
        return _summary(case, transfer, cpu)


def _summary(case, transfer, cpu):
    """CPU time is that of the two programs, with what the kernel does in their
    context; in emulated cases the receiving side's input runs in the emulator's."""
    by_path = transfer.received if sum(transfer.received.values()) > sum(transfer.sent.values()) else transfer.sent
    return {
        "mbit_s": 0 if transfer.error else transfer.mbit_s,
        "seconds": transfer.total_s,
        "stall_s": transfer.said.get("longest_gap_s", transfer.total_s),
        "cpu_s_per_gb": cpu / case.size * GB,
        "path0_share": by_path["eth0"] / max(1, by_path["eth0"] + by_path["eth1"]),
        "failed": bool(transfer.error),
    }


def measure(case, carrier, direction, n=3):
    """Medians of n runs, and the runs themselves under "runs"."""
    runs = [run_once(case, carrier, direction) for _ in range(n)]
    medians = {key: statistics.median(run[key] for run in runs) for key in runs[0] if key != "failed"}
    return {"case": case.name, "carrier": carrier.name, "direction": direction, **medians,
            "failed": sum(run["failed"] for run in runs), "runs": runs}


HEADER = f"{'case':16} {'carrier':14} {'':4} {'Mbit/s':>9} {'total s':>8} {'stall s':>8} {'CPU-s/GB':>8} {'path 0':>7}"


def row(result):
    """One line of the table; stall is the longest time without a byte."""
    failed = f"  {result['failed']} failed" if result["failed"] else ""
    return (f"{result['case']:16} {result['carrier']:14} {result['direction']:4} {result['mbit_s']:9.1f} "
            f"{result['seconds']:8.2f} {result['stall_s']:8.3f} {result['cpu_s_per_gb']:8.2f} "
            f"{result['path0_share']:7.0%}{failed}")


def measure_all(cases, n, show=print):
    results = []
    show(HEADER)
    for case in cases:
        show(f"# {case.note}")
        for carrier in case.carriers:
            for direction in case.directions:
                results.append(measure(case, carrier, direction, n))
                show(row(results[-1]))
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-n", type=int, default=3, help="runs of each; medians are shown [%(default)s]")
    parser.add_argument("--json", metavar="FILE", help="write all runs there")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    options = parser.parse_args()
    unknown = [name for name in options.cases if name not in CASES]
    if unknown:
        parser.error(f"no case {unknown[0]}")
    results = measure_all([CASES[name] for name in options.cases or CASES], options.n,
                          show=lambda line: print(line, flush=True))
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
