"""What libmpshim costs beside the kernel, on this machine: part of `make bench`.

    PYTHONPATH=tests python3 -m lab.costs [-n RUNS] [NAME...]

Start of a program, connection rates, latency, memory of idle connections, and what an
engine's sockets cost others. All over a plain veth, medians of some runs; the kernel's
figures, taken in turn with ours, are of kernel MPTCP at both ends.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .crowd import FAR, PORT, RATES, crowd_of_all, kernel_kb, lab_with_server
from .host import PYTHON
from .netns import processes
from .shim import KERNEL, MPTCP_RUN, shim
from .topology import two_path
from .traffic import download

LIBRARY = MPTCP_RUN.parent / "libmpshim.so"
WRAPS = {"ours": shim(), "ours, helper": shim("--engine=helper"), "kernel": list(KERNEL)}


def rate(wrap, n, width):
    with lab_with_server(wrap) as lab:
        if wrap != WRAPS["kernel"]:
            carried(lab.client.run([*told(wrap), RATES, "connect", FAR, PORT, n, width], timeout=120).stderr)
        return float(lab.client.run([*wrap, RATES, "connect", FAR, PORT, n, width], timeout=120).stdout)


def told(wrap):
    """The same, with a line for each connection: not for the run that is timed."""
    return wrap if wrap == WRAPS["kernel"] else [wrap[0], "-v", *wrap[1:]]


def carried(lines):
    """A figure of connections that the kernel carried would not be ours."""
    kernel = [line for line in lines.splitlines() if "kernel TCP" in line or "plain TCP" in line]
    if kernel or "MPTCP" not in lines:
        raise RuntimeError(f"{len(kernel)} connections were left to the kernel: {kernel[:1]}")


def latency(wrap):
    with lab_with_server(wrap) as lab:
        return float(lab.client.run([*wrap, RATES, "pingpong", FAR, PORT, 5000]).stdout.split()[0])


# -- memory

def processes_kb(lab):
    total = 0
    for host in (lab.client, lab.server):
        for pid in processes(host.ns):
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1])
    return total


def idle(wrap, n):
    """KB a connection, both ends together: of the processes, and of the kernel."""
    with lab_with_server(wrap) as lab:
        for host in (lab.client, lab.server):
            host.sysctl({"ipv4/ip_local_port_range": "10000 65000"})
        lab.client.run([*wrap, RATES, "connect", FAR, PORT, 10, 1])
        before = processes_kb(lab), kernel_kb()
        with tempfile.TemporaryFile("w+") as lines:
            # Two clients, for a process may have 20,000 descriptors here and there.
            clients = [lab.client.popen([*told(wrap), RATES, "idle", FAR, PORT, n // 2], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=lines) for _ in range(2)]
            if any(client.stdout.readline() != "ready\n" for client in clients):
                raise RuntimeError("not all connections came up")
            time.sleep(1)
            lines.seek(0)
            if wrap != WRAPS["kernel"]:
                carried(lines.read())
        after = processes_kb(lab), kernel_kb()
        for client in clients:
            lab.client.stop(client)
    return (after[0] - before[0]) / n, (after[1] - before[1]) / n


# -- the start of a program

def start_ms(preload):
    """Milliseconds from posix_spawn() to the end of a program that opens no socket."""
    env = {**os.environ, **({"LD_PRELOAD": str(LIBRARY)} if preload else {})}
    begin = time.perf_counter()
    os.waitpid(os.posix_spawn("/bin/true", ["true"], env), 0)
    return (time.perf_counter() - begin) * 1e3


def start_kb(preload):
    """Its own memory: private pages."""
    env = {**os.environ, **({"LD_PRELOAD": str(LIBRARY)} if preload else {})}
    text = subprocess.run(["cat", "/proc/self/smaps_rollup"], env=env, capture_output=True, text=True, check=True).stdout
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(("Private_Clean:", "Private_Dirty:")))


# -- the end of a program that has just written much

SINK = """import socket
l = socket.create_server(("0.0.0.0", 7001)); print("ready", flush=True)
while True:
    s, _ = l.accept()
    while s.recv(1 << 20): pass
"""
UPLOAD = f"""import os, socket, time
s = socket.create_connection(("{FAR}", 7001)); s.sendall(b"x" * 10_000_000); print(time.monotonic(), flush=True); os._exit(0)
"""


def exit_ms(wrap):
    """Milliseconds from the last write's return to the reaping; 10 MB for two paths of 20 Mbit/s are under way."""
    with two_path(families="v4", rate="20M", delay="5ms") as lab:
        sink = lab.server.popen([*KERNEL, PYTHON, "-c", SINK], stdout=subprocess.PIPE)
        sink.stdout.readline()
        program = lab.client.popen([*wrap, PYTHON, "-c", UPLOAD], stdout=subprocess.PIPE)
        program.wait()
        return (time.monotonic() - float(program.stdout.read())) * 1e3


# -- bystanders

def bystander(engine):
    """Gbit/s of a kernel TCP flow to a host: alone, or while an engine there serves a listener and 200 connections."""
    with two_path(families="v4", direct=True, n=1) as lab:
        httpd = lab.server.spawn_http("/tmp", mptcp=False, port=8001)
        if engine:
            server = lab.server.popen([*shim("--engine=helper"), RATES, "serve", PORT], stdout=subprocess.PIPE)
            server.stdout.readline()
            client = lab.client.popen([*shim(), RATES, "idle", FAR, PORT, 200], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            client.stdout.readline()
        return download(lab.client, httpd.url("size/4000000000"), digest=False).mbit_s / 1e3


# -- the table

def turns(n, makers):
    """n runs of each, in turn: {name: median}."""
    values = {name: [] for name in makers}
    for _ in range(n):
        for name, make in makers.items():
            values[name].append(make())
    return {name: statistics.median(got) for name, got in values.items()}


def by_wrap(measure, *args):
    return {name: (lambda wrap=wrap: measure(wrap, *args)) for name, wrap in WRAPS.items()}


def memory(n):
    # A helper has two descriptors a connection, carrier and guard; 20,000 is a usual limit, which only root may raise.
    rows = {name: idle(WRAPS[name], 9000 if "helper" in name else 10000) for name in WRAPS}
    return {**{name: sum(kb) for name, kb in rows.items()}, **{f"{name}, one end": sum(kb) / 2 for name, kb in rows.items()},
            **{f"{name}: processes": kb[0] for name, kb in rows.items()}}


def startup(n):
    ms = turns(n * 200, {"ours": lambda: start_ms(True), "bare": lambda: start_ms(False)})
    return {"ours": ms["ours"] - ms["bare"], "bare": ms["bare"]}


ROWS = [
    # name, what, measure(n), target
    ("start", "start of a program without sockets: ms more", startup, ("<=", 1.0)),
    ("start-memory", "... KB more", lambda n: {"ours": start_kb(True) - start_kb(False), "bare": start_kb(False)}, ("<=", 300)),
    ("exit", "_exit() with 10 MB unsent, until it is reaped: ms", lambda n: turns(n, by_wrap(exit_ms)), None),
    ("connect-1", "connections/s, one at a time", lambda n: turns(n, by_wrap(rate, 3000, 1)), (">=", 2000)),
    ("connect-32", "connections/s, 32 at once", lambda n: turns(n, by_wrap(rate, 10000, 32)), (">=", 6000)),
    ("latency", "a byte there and back, us", lambda n: turns(n, by_wrap(latency)), ("<=", 150)),
    ("idle", "10,000 idle connections: KB each, both ends, with the kernel's", memory, ("<=", 64)),
    ("crowd", "20,000 connections through one helper, all right: its KB each", lambda n: crowd_of_all(), ("<=", 32)),
    ("bystander", "kernel TCP beside an engine, Gbit/s", lambda n: turns(n, {"ours": lambda: bystander(True), "alone": lambda: bystander(False)}), None),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-n", type=int, default=3, help="runs of each; medians are shown [3]")
    parser.add_argument("names", nargs="*", metavar="NAME", help="the start of a row's name")
    options = parser.parse_args()
    if os.geteuid() or not RATES.exists():
        print("costs needs root, to make network namespaces, and a build (make all tests)", file=sys.stderr)
        return 1
    print("\nc. what it costs; plain veth, no emulator")
    for name, text, measure, target in ROWS:
        if options.names and not any(name.startswith(wanted) for wanted in options.names):
            continue
        try:
            got = measure(options.n)
        except (RuntimeError, subprocess.SubprocessError, OSError, ValueError) as error:
            print(f"{name:14} {text:64} FAILED: {str(error)[-300:]}", flush=True)
            continue
        met = "" if target is None else "ok" if (got["ours"] >= target[1] if target[0] == ">=" else got["ours"] <= target[1]) else "MISS"
        goal = f"{target[0]} {target[1]:g}" if target else ""
        print(f"{name:14} {text:64} {goal:>8} {met:4}  " + ", ".join(f"{key} {value:.4g}" for key, value in got.items()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
