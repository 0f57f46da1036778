"""What libmpshim does, seen in half a minute: `make demo`.

Two hosts are made in network namespaces, with two emulated paths of 50 Mbit/s
between them. The same file is downloaded by the same curl four times: without
and with mptcp-run, undisturbed and with the first path pulled for some seconds.
All of it is gone afterwards. Status 1: a wrong hash, or only one path was used.
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field

from .shim import MPTCP_RUN, CurlRun, shim
from .topology import two_path
from .traffic import make_file

SIZE = 45_000_000
RATE_MBIT, DELAY_MS = 50, 10
PULL_AT_S, BACK_AT_S = 1.5, 4.0
SAMPLE_S, SHOW_S, SHOW_PLAIN_S = 0.01, 0.1, 1.0
FAIR_SHARE = 0.2                       # of the file: less than that by one path is not "two paths"


@dataclass
class Run:
    """One download: what was asked, then what happened."""
    name: str
    wrap: list
    pulled: bool
    seconds: float = 0
    stall_s: float = 0
    by_path: list = field(default_factory=list)        # bytes received by each interface
    after_back: list = field(default_factory=list)     # those since the path came back
    hash_ok: bool = False
    told: list = field(default_factory=list)


# -- one download, watched

class Paths:
    """Bytes received by each interface of the client since the start, and their rates."""

    def __init__(self, host):
        self.host = host
        self.names = [interface.name for interface in host.interfaces]
        self.start = self._read()
        self.last, self.last_at = self.start, time.monotonic()

    def _read(self):
        traffic = self.host.traffic()
        return [traffic[name][0] for name in self.names]

    def bytes(self):
        return [now - then for now, then in zip(self._read(), self.start)]

    def rates(self):
        """Mbit/s of each since the last question."""
        now, at = self._read(), time.monotonic()
        rates = [(new - old) * 8e-6 / max(1e-3, at - self.last_at) for new, old in zip(now, self.last)]
        self.last, self.last_at = now, at
        return rates


class Cable:
    """The first path: pulled and plugged in again at its times."""

    def __init__(self, lab, pulled):
        self.lab, self.todo = lab, [(PULL_AT_S, False), (BACK_AT_S, True)] if pulled else []
        self.is_in = True

    def step(self, elapsed):
        """True if it was just plugged in again."""
        if not self.todo or elapsed < self.todo[0][0]:
            return False
        _, self.is_in = self.todo.pop(0)
        (self.lab.client.link_up if self.is_in else self.lab.client.link_down)(0)
        return self.is_in


class Progress:
    """A line for each path: in place on a terminal, once a second elsewhere."""

    def __init__(self, names):
        self.names, self.tty = names, sys.stdout.isatty()
        self.every = SHOW_S if self.tty else SHOW_PLAIN_S
        self.drawn, self.next_at = False, self.every

    def due(self, elapsed):
        if elapsed < self.next_at:
            return False
        self.next_at = elapsed + self.every
        return True

    def show(self, elapsed, rates, moved, cable_in, note=""):
        if self.tty and self.drawn:
            print(f"\033[{len(self.names)}A", end="")
        for i, name in enumerate(self.names):
            state = note if i or cable_in else "  pulled!"
            print(f"  {elapsed:5.1f} s  {name}  {_bar(rates[i])} {rates[i]:6.1f} Mbit/s  {moved[i] / 1e6:6.1f} MB{state}"
                  + "\033[K" * self.tty, flush=True)
        self.drawn = True


def _bar(rate):
    filled = min(20, round(20 * rate / RATE_MBIT))
    return "[" + "#" * filled + "." * (20 - filled) + "]"


class Stall:
    """The longest time between two growths of a file."""

    def __init__(self):
        self.size, self.at, self.longest = 0, 0.0, 0.0

    def see(self, size, elapsed):
        if size == self.size:
            return
        if self.size:
            self.longest = max(self.longest, elapsed - self.at)
        self.size, self.at = size, elapsed


def watch(lab, run, url):
    """Starts curl, pulls the cable at its time, draws; returns the CurlRun at its end."""
    paths, cable, stall = Paths(lab.client), Cable(lab, run.pulled), Stall()
    progress, start, back = Progress(paths.names), time.monotonic(), None
    going = CurlRun(lab.client, url, wrap=run.wrap)
    while going.process.poll() is None:
        elapsed = time.monotonic() - start
        stall.see(going.size(), elapsed)
        if cable.step(elapsed):
            back = paths.bytes()
        if progress.due(elapsed):
            progress.show(elapsed, paths.rates(), paths.bytes(), cable.is_in)
        time.sleep(SAMPLE_S)
    elapsed = time.monotonic() - start
    stall.see(going.size(), elapsed)
    run.by_path, run.stall_s = paths.bytes(), stall.longest
    run.after_back = [now - then for now, then in zip(run.by_path, back)] if back else []
    progress.show(elapsed, [moved * 8e-6 / elapsed for moved in run.by_path], run.by_path, cable.is_in, "  in all")
    return going


def download(run, file, kernel_mptcp_server=True):
    """One download in a lab of its own."""
    with two_path(families="v4", rate=f"{RATE_MBIT}M", delay=f"{DELAY_MS}ms") as lab:
        ours = not (kernel_mptcp_server and lab.kernel_mptcp)
        server = lab.server.spawn_http(file.root, mptcp=not ours, wrap=shim() if ours else ())
        print(f"\n{run.name}", flush=True)
        done = watch(lab, run, server.url(file.name)).result(check=False)
        run.seconds, run.hash_ok = done.said["time_total"], done.sha256 == file.sha256
        run.told = [line for line in done.told.splitlines() if line]
        for line in run.told:
            print(f"  {line}")


# -- the end

HEADER = f"{'':44} {'time':>7} {'Mbit/s':>7} {'eth0 MB':>8} {'eth1 MB':>8} {'longest stall':>14}  hash"


def row(run):
    by_path = " ".join(f"{moved / 1e6:8.1f}" for moved in run.by_path)
    return (f"{run.name:44} {run.seconds:5.1f} s {SIZE * 8e-6 / run.seconds:7.1f} {by_path} {run.stall_s * 1e3:11.0f} ms  "
            + ("ok" if run.hash_ok else "WRONG"))


def faults(runs):
    """What did not go as it should, in words."""
    found = [f"{run.name}: the hash is wrong" for run in runs if not run.hash_ok]
    for run in runs:
        if run.wrap and min(run.by_path) < FAIR_SHARE * SIZE * (0.5 if run.pulled else 1):
            found.append(f"{run.name}: not over two paths")
        if run.wrap and run.pulled and run.after_back and run.after_back[0] < SIZE * 0.02:
            found.append(f"{run.name}: the path that came back was not used")
    return found


def demonstrate():
    file = make_file(SIZE)
    pull = f"eth0 pulled from {PULL_AT_S:g} s to {BACK_AT_S:g} s"
    runs = [Run("curl", [], False), Run("mptcp-run curl", shim("-v"), False),
            Run(f"curl, {pull}", [], True), Run(f"mptcp-run curl, {pull}", shim("-v"), True)]
    print(f"Two paths of {RATE_MBIT} Mbit/s, {2 * DELAY_MS} ms round trip, between two network namespaces; "
          f"a file of {SIZE / 1e6:g} MB\nfrom an HTTP server on the Linux kernel's own MPTCP.")
    for run in runs:
        download(run, file)
    print(f"\n{HEADER}")
    for run in runs:
        print(row(run))
    found = faults(runs)
    for fault in found:
        print(fault)
    return 1 if found else 0


def main():
    if os.geteuid():
        print("The demo makes network namespaces: run it as root.", file=sys.stderr)
        return 1
    if not MPTCP_RUN.exists():
        print(f"{MPTCP_RUN} is not built: ./configure && make", file=sys.stderr)
        return 1
    try:
        return demonstrate()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)   # what is left of the lab is removed at exit
        print("\ninterrupted; the lab is gone", file=sys.stderr)
        return 130
    except (RuntimeError, subprocess.SubprocessError, OSError) as error:
        print(f"the demo failed: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
