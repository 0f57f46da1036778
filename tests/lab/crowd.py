"""Thousands of connections at once through one helper: every one echoes right, and nothing is left of them.

    server   under mptcp-run, engine in the helper: all connections are that one's
    clients  some processes with the engine inside, for a process may have 20,000 descriptors, here and in an engine
"""

import contextlib
import os
import subprocess
import time
from pathlib import Path

from .shim import MPTCP_RUN, engines, shim
from .topology import two_path

RATES = MPTCP_RUN.parent / "tests/rates"
PORT, FAR = "7000", "10.10.1.1"

FDS_MAX = 19_800  # of one process, where the limit is 20,000; a helper has one descriptor for each accepted connection


@contextlib.contextmanager
def lab_with_server(wrap, n=1):
    """A plain veth with `rates serve` at its far end."""
    with two_path(families="v4", direct=True, n=n) as lab:
        lab.server.sysctl({"core/somaxconn": 8192, "ipv4/tcp_max_syn_backlog": 8192})
        server = lab.server.popen([*wrap, RATES, "serve", PORT], stdout=subprocess.PIPE)
        if server.stdout.readline() != "ready\n":
            raise RuntimeError("rates serve did not start")
        yield lab


def kernel_kb():
    """Memory of the kernel's own that sockets are made of."""
    wanted = ("Slab:", "PageTables:", "KernelStack:", "Percpu:", "VmallocUsed:")
    return sum(int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith(wanted))


def resources(pid):
    """Open descriptors, threads, and resident kilobytes of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"]), int(status["VmRSS"].split()[0])


def sockets(host):
    """TCP sockets in use of a host, as the kernel counts them, but for TIME_WAIT."""
    with host.inside():
        line = next(line for line in Path("/proc/thread-self/net/sockstat").read_text().splitlines() if line.startswith("TCP:"))
    return int(line.split()[2])


def settled(ask, wanted, timeout):
    """What ask() says as soon as wanted(it), or at the end of the time."""
    end = time.monotonic() + timeout
    while not wanted(now := ask()) and time.monotonic() < end:
        time.sleep(0.2)
    return now


def right(clients, n):
    got = [client.stdout.readline() for client in clients]
    if got != ["right\n"] * len(clients):
        raise RuntimeError(f"not all of {n} connections echoed: {got} {[client.poll() for client in clients]}")


def crowd(n, processes=4, paths=1, seconds=30):
    """n connections. {"helper KB": a connection, "kernel KB": a connection (both ends), ...}; RuntimeError if one is wrong or left."""
    options = ["--time-wait-s=1"]
    with lab_with_server(shim("--engine=helper", *options), n=paths) as lab:
        for host in (lab.client, lab.server):
            host.sysctl({"ipv4/ip_local_port_range": "10000 65000"})
        (helper,) = engines(lab.server)
        lab.client.run([*shim("--engine=inside", *options), RATES, "connect", FAR, PORT, 10, 1])
        before, before_kernel = settled(lambda: resources(helper), lambda now: False, 2), kernel_kb()
        listening = sockets(lab.server)
        begin = time.monotonic()
        clients = [lab.client.popen([*shim("--engine=inside", *options), RATES, "echo", FAR, PORT, n // processes],
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(processes)]
        right(clients, n)
        up = time.monotonic() - begin
        during, during_kernel = resources(helper), kernel_kb()
        if during[0] - before[0] < n:
            raise RuntimeError(f"{n} connections, but the helper has {during[0]} descriptors, {before[0]} before")
        for client in clients:
            client.stdin.write("again\n")
            client.stdin.flush()
        begin = time.monotonic()
        right(clients, n)
        again = time.monotonic() - begin
        for client in clients:
            client.stdin.close()
        if any(client.wait(60) for client in clients):
            raise RuntimeError("a client failed at its end")
        after = settled(lambda: resources(helper), lambda now: now[0] <= before[0] + paths, seconds)
        left = settled(lambda: (sockets(lab.server), sockets(lab.client)), lambda now: now[0] <= listening and now[1] == 0, seconds)
        if after[0] > before[0] + paths or after[1] > before[1]:  # a packet socket of an interface stays open, docs/io.md
            raise RuntimeError(f"left in the helper, descriptors, threads, KB: {after}, before: {before}")
        if left[0] > listening or left[1]:
            raise RuntimeError(f"sockets left on server and client: {left}, before: {listening}, 0")
    return {"helper KB": (during[2] - before[2]) / n, "kernel KB": (during_kernel - before_kernel) / n,
            "s to open": up, "s to echo": again, "helper MB after": after[2] / 1024}


def crowd_of_all():
    """As many as one helper's descriptors allow: for lab.costs."""
    n = FDS_MAX // 4 * 4
    got = crowd(n)
    return {"ours": got.pop("helper KB"), "connections": n, **got}
