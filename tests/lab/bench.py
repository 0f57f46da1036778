"""libmpshim's figures beside the kernel's, on this machine: `make bench`.

    PYTHONPATH=tests python3 -m lab.bench [-n 5] [--quick] [--json FILE] [POINT|CASE...]

A table for each thing that libmpshim promises: medians of our runs, of the
kernel's in the same network and taking turns with ours, the target, and whether
it was met. A case is named by the start of its name: "6" is all of table 6,
"6-link-down" four rows of it. Every transfer of point 1 to 6 is checked by
SHA-256. CPU seconds are those of client, server and helper engine, with what the
kernel does in their context; what other programs do at the same time disturbs
the figures, so the machine's load is told at the top.
"""

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Optional

from .host import HERE, PYTHON, parse_last_json
from .shim import KERNEL, MPTCP_RUN, Watch, curl, engines, shim, spawn_http_server
from .topology import two_path, two_routers
from .traffic import make_file, start_fetch

MB, GB = 1_000_000, 1_000_000_000
TICK = os.sysconf("SC_CLK_TCK")


# -- how client and server are run

@dataclass(frozen=True)
class Carrier:
    """Options of start_fetch() for the client, of spawn_http() for the server."""
    name: str
    client: dict
    server: dict


def ours(*options):
    return {"mptcp": False, "wrap": shim(*options), "congestion": None}


PLAIN, MPTCP = {"mptcp": False}, {"mptcp": True}
KERNEL_TCP = Carrier("kernel TCP", PLAIN, PLAIN)
KERNEL_MPTCP = Carrier("kernel MPTCP", MPTCP, MPTCP)


def our_client(*options, server=MPTCP):
    return Carrier("our client", ours(*options), server)


def our_server(*options, client=MPTCP):
    return Carrier("our server", client, ours(*options))


def both_ours(*options):
    return Carrier("shim to shim", ours(*options), ours(*options))


# -- what is measured

@dataclass
class Run:
    """One transfer. fault: what makes the figures void; empty if nothing."""
    mbit_s: float = 0
    stall_ms: float = 0
    cpu_s_per_gb: float = 0
    share: float = 0                                   # of the bytes, by the first path
    back_ms: float = 0                                 # until a path that came back carried data again
    connect_ms: float = 0                              # the program's connect()
    back_mb: float = 0                                 # over the path that came back, since then
    seconds: float = 0                                 # the transfer's
    fault: str = ""


def _cpu_of(pid):
    """User and system seconds of a process and of its children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / TICK


def _cpu_beside_client(lab, server):
    """The server's and the helpers'; the client tells its own at its end."""
    return _cpu_of(server.pid) + sum(_cpu_of(pid) for host in (lab.client, lab.server) for pid in engines(host))


def _share(lab, seen):
    first, second = (seen.moved(lab.client, f"eth{i}") for i in (0, 1))
    return first / max(1, first + second)


def _witness(lab, seen):
    """What the kernels' MPTCP counters say against the run."""
    return "; ".join(f"{host.role}: {seen.bad(host)}" for host in (lab.client, lab.server) if seen.bad(host))


def curl_run(options, size, wrap, serve, up=False, family=4):
    """curl in the lab, checked by hash, by the counters, and by the use of both paths."""
    file = make_file(size)
    with two_path(**options) as lab:
        server = serve(lab.server, file.root)
        with Watch(lab) as seen:
            got = curl(lab.client, server.url("x" if up else file.name, family=family), wrap=wrap,
                       put=file if up else None, check=False)
        share = _share(lab, seen)
        fault = ("wrong hash" if got.sha256 != file.sha256 else "") or _witness(lab, seen) \
            or ("one path only" if not 0.1 < share < 0.9 else "")
        return Run(mbit_s=got.mbit_s, share=share, fault=fault)


def fetch_run(options, carrier, size, up=False, during=None, digest=True, rcvbuf=None):
    """The lab's own client, which meters stalls. during(lab): what happens meanwhile, on
    its own clock; what it returns is called at the transfer's end, for the bytes since."""
    file = make_file(size) if digest or up else None
    with two_path(**options) as lab:
        server = lab.server.spawn_http(file.root if file else "/tmp", **carrier.server)
        url = server.url("x" if up else file.name if digest else f"size/{size}")
        cpu = _cpu_beside_client(lab, server)
        running = start_fetch(lab.client, url, put=file if up else None, digest=digest, rcvbuf=rcvbuf,
                              **carrier.client)
        since = during(lab) if during else None
        transfer = running.result(check=False)
        cpu = _cpu_beside_client(lab, server) - cpu + transfer.said.get("cpu_s", 0)
        back = since() if since else 0
    return _fetched(transfer, file if digest else None, size, cpu, back)


def _fetched(transfer, file, size, cpu, back):
    if transfer.error:
        return Run(fault=transfer.error)
    paths = [{name: moved for name, moved in way.items() if name != "lo"} for way in (transfer.received, transfer.sent)]
    by_path = max(paths, key=lambda moved: sum(moved.values()))   # carriers use lo
    return Run(mbit_s=transfer.mbit_s, seconds=transfer.said["seconds"], stall_ms=transfer.longest_gap_s * 1e3, cpu_s_per_gb=cpu * GB / size,
               share=by_path["eth0"] / max(1, sum(by_path.values())), back_mb=back / MB,
               fault="wrong hash" if file and transfer.sha256 != file.sha256 else "")


# -- cases

@dataclass
class Case:
    """One row. value: the figure compared; target: (operator, number), a number with "x" a
    multiple of the kernel's in the same run. Each of run and kernel makes one Run."""
    name: str
    text: str
    run: Callable
    kernel: Optional[Callable] = None
    target: tuple = (">=", 0.0)
    value: str = "mbit_s"
    columns: tuple = ()                                # more of Run's fields to show
    kernels: dict = field(default_factory=dict)        # more of the kernel's, by name: shown only


TITLES = {
    "1": "curl under mptcp-run, kernel MPTCP server; 2 x 50 Mbit/s, 20 ms (Mbit/s)",
    "2": "kernel MPTCP client, server under mptcp-run; the same network (Mbit/s)",
    "3": "shim to shim; the same network; the kernel's: kernel to kernel (Mbit/s)",
    "4": "peers without MPTCP, against kernel TCP on the same 50 Mbit/s path (Mbit/s)",
    "5": "unequal and lossy paths (Mbit/s); fairness in simulation",
    "6": "the first path dies at 1 s: the longest time without a byte at the receiving program (ms); or changes payload (s)",
    "7": "plain veth, no emulator, shim to shim, against kernel TCP (Mbit/s)",
    "8": "one path 50 Mbit/s 20 ms with loss (%), reordering (5 % held back by ms) or both; TCP against TCP, CUBIC (Mbit/s)",
    "9": "8M 20 ms + 2M 150 ms with 2 s of queue, receiver's SO_RCVBUF of so many KB (Mbit/s)",
    "10": "the kernel's simult_flows: 16 MiB one way and 80 KB the other (down, up); and, an addition, 16 MiB both ways at once (seconds)",
}
EQUAL = dict(families="v4", rate="50M", delay="10ms")
SLOW = dict(families="v4", rate="20M", delay="10ms")
USED_BYTES = 30_000                                    # more than probes and retransmissions of one segment


def serve_python(wrap, bind="::"):
    return lambda host, root: spawn_http_server(host, root, wrap, bind=bind)


def serve_nginx(wrap):
    return lambda host, root: host.spawn_nginx(root, wrap=wrap)


def serve_httpd(server):
    return lambda host, root: host.spawn_http(root, **server)


def throughput_cases(size):
    def case(name, text, wrap, serve, kernel_serve, up=False, family=4, options=EQUAL):
        return Case(name, text, lambda: curl_run(options, size, wrap, serve, up, family),
                    kernel_run(options, size, kernel_serve, up, family), (">=", 88.0), columns=("share",))

    kernel_python, kernel_nginx, kernel_httpd = serve_python(KERNEL), serve_nginx(KERNEL), serve_httpd(MPTCP)
    our_httpd = serve_httpd(ours())
    v6, both = {**EQUAL, "families": "v6"}, {**EQUAL, "families": "both"}
    return [
        case("1-python", "download, python http.server", shim(), kernel_python, kernel_python),
        case("1-nginx", "download, nginx", shim(), kernel_nginx, kernel_nginx),
        case("1-upload", "upload", shim(), kernel_httpd, kernel_httpd, up=True),
        case("2-python", "download, python http.server", KERNEL, serve_python(shim()), kernel_python),
        case("2-nginx", "download, nginx", KERNEL, serve_nginx(shim()), kernel_nginx),
        case("2-upload", "upload", KERNEL, our_httpd, kernel_httpd, up=True),
        case("3-v4", "download, IPv4", shim(), our_httpd, kernel_python),
        case("3-v4-upload", "upload, IPv4", shim(), our_httpd, kernel_httpd, up=True),
        case("3-v6", "download, IPv6", shim(), our_httpd, kernel_httpd, family=6, options=v6),
        case("3-both", "download, both families on both paths", shim(), our_httpd, kernel_httpd, options=both),
    ]


_kernel_runs = {}


def kernel_run(options, size, serve, up, family):
    """The kernel's own figure. Rows with the same network and server program share theirs."""
    key = (json.dumps(options, sort_keys=True), size, serve, up, family)

    def run(number):
        kept = _kernel_runs.setdefault(key, {})
        if number not in kept:
            kept[number] = curl_run(options, size, KERNEL, serve, up, family)
        return kept[number]

    run.numbered = True
    return run


def plain_cases(size):
    one = {**EQUAL, "kernel_mptcp": False}

    def case(name, text, carrier, up):
        return Case(name, text, lambda: fetch_run(one, carrier, size, up), lambda: fetch_run(one, KERNEL_TCP, size, up),
                    (">=", "0.95x"), columns=("cpu_s_per_gb",))

    return [case(f"4-{role}-{way}", f"our {role}, plain {peer}, {way}load", carrier, way == "up")
            for role, peer, carrier in (("client", "server", our_client(server=PLAIN)),
                                        ("server", "client", our_server(client=PLAIN))) for way in ("down", "up")]


def uneven_cases(size):
    unequal = dict(families="v4", rate=["20M", "10M"], delay=["10ms", "40ms"])
    lossy = dict(families="v4", rate="50M", delay="5ms", loss=[0, 0.01])

    def case(name, text, options, carrier, bytes_, target, up=False):
        return Case(name, text, lambda: fetch_run(options, carrier, bytes_, up),
                    lambda: fetch_run(options, KERNEL_MPTCP, bytes_, up), (">=", target), columns=("share",))

    pairs = (("client", our_client), ("server", our_server), ("both", both_ours))
    uneven = [case(f"5-unequal-{role}{'-up' * up}", f"20M 20 ms + 10M 80 ms, {role} ours, {'up' if up else 'down'}load",
                   unequal, make(), 24 * MB, 26.0, up) for role, make in pairs for up in (False, True)
              if not (role == "both" and up)]
    loss = [case(f"5-loss-{cc}-{role}", f"1 % loss on one, {cc}, {role} ours, {'up' if up else 'down'}load",
                 lossy, make(f"--cc={cc}"), size, target, up)
            for cc, target in (("cubic", 55.0), ("lia", 47.0))
            for role, make, up in (("client", our_client, True), ("server", our_server, False), ("both", both_ours, False))]
    return [*uneven, *loss, Case("5-fairness", "two LIA subflows by one Reno flow", fairness_run, None,
                                 ("within", (0.7, 1.3)), value="share")]


def fairness_run():
    """The share that the simulation prints (no clock of this machine in it: once is enough)."""
    program = MPTCP_RUN.parent / "tests/sim_fairness"
    if not program.exists():
        return Run(fault=f"{program} is not built (make tests)")
    done = subprocess.run([program], capture_output=True, text=True, timeout=300)
    ratios = [float(found) for found in re.findall(r"^median ([0-9.]+)", done.stdout, re.MULTILINE)]
    if not ratios:
        return Run(fault=(done.stdout + done.stderr).strip()[-200:] or f"exit {done.returncode}")
    return Run(share=max(ratios, key=lambda ratio: abs(ratio - 1)), fault="" if done.returncode == 0 else "sim_fairness failed")


fairness_run.once = True


def dies(how, at=1.0):
    def during(lab):
        time.sleep(at)
        lab.client.link_down(0) if how == "link-down" else lab.link[0].blackhole()
    return during


def dies_and_returns(how, at=1.0, back_after=1.5):
    """Returns what counts the bytes of the path since it is back."""
    def during(lab):
        dies(how, at)(lab)
        time.sleep(back_after)
        lab.client.link_up(0) if how == "link-down" else lab.link[0].blackhole(False)
        before = sum(lab.client.traffic()["eth0"])
        return lambda: sum(lab.client.traffic()["eth0"]) - before
    return during


def used_again_run(make, up, died_for=3.0):
    """A path is silent for three seconds: how long after its return until it has carried USED_BYTES."""
    file = make_file(60 * MB)
    with two_path(**SLOW) as lab:
        carrier = make()
        server = lab.server.spawn_http(file.root, **carrier.server)
        running = start_fetch(lab.client, server.url("x" if up else file.name), put=file if up else None, **carrier.client)
        time.sleep(1.0)
        lab.link[0].blackhole()
        time.sleep(died_for)
        receiver = lab.server if up else lab.client
        back = receiver.traffic()["eth0"][0] + USED_BYTES
        lab.link[0].blackhole(False)
        start = time.monotonic()
        while receiver.traffic()["eth0"][0] < back and time.monotonic() - start < 10:
            time.sleep(0.01)
        after = time.monotonic() - start
        transfer = running.result(check=False)
    run = _fetched(transfer, file, 60 * MB, 0, 0)
    run.back_ms = after * 1e3
    return run


def first_syn_run(wrap):
    """connect() while the path that routing prefers is silent."""
    file = make_file(MB)
    with two_routers(server_addresses=1) as lab:
        server = lab.server.spawn_http(file.root)
        lab.link[0].blackhole()
        got = curl(lab.client, server.url(file.name), wrap=wrap, check=False, options=["--connect-timeout", "8"])
        return Run(connect_ms=got.said["time_connect"] * 1e3, fault="" if got.sha256 == file.sha256 else "not connected in 8 s")


def payload_run(carrier, up, mid):
    """A box on the first path changes a byte of each data packet and mends the TCP checksum, from the start or once 500 KB
    have passed. DSS checksums are on at both ends, the kernel's too."""
    file = make_file(5 * MB)
    with two_path(**SLOW) as lab:
        for host in lab.client, lab.server:
            host.sysctl({"mptcp/checksum_enabled": 1})
        lab.link[0].hook(f"payload,dir={'a2b' if up else 'b2a'}" + ",after=500k" * mid)
        server = lab.server.spawn_http(file.root, **carrier.server)
        running = start_fetch(lab.client, server.url("x" if up else file.name), put=file if up else None, timeout=15, **carrier.client)
        transfer = running.result(check=False)
        changed = sum(stats["hook_changes"] for stats in lab.link[0].stats().values())
    run = _fetched(transfer, file, 5 * MB, 0, 0)
    run.fault = run.fault or ("" if changed else "the box changed nothing")
    return run


def payload_cases():
    """Issue 3, point 1: intact on the other path. Who receives decides: a kernel that finds the first bytes changed, before
    there is a second path, goes on as plain TCP with them (RFC 8684 3.7), so there it is asked for in mid-transfer only."""
    cases = []
    for (role, make), up, mid in itertools.product((("client", our_client), ("server", our_server), ("both", both_ours)), (False, True), (False, True)):
        if not mid and role == ("client" if up else "server"):
            continue                                       # the kernel receives
        cases.append(Case(f"6-payload-{'mid' if mid else 'start'}-{role}{'-up' * up}",
                          f"payload changed on one path, {'in mid-transfer' if mid else 'from the start'}, {role} ours, {'up' if up else 'down'}load, 5 MB (s)",
                          lambda make=make, up=up, mid=mid: payload_run(make("--checksum=on"), up, mid),
                          lambda up=up, mid=mid: payload_run(KERNEL_MPTCP, up, mid), ("<=", 2.5), value="seconds"))
    return cases


def slow_failover_cases():
    """Issue 3, point 4."""
    pairs = (("client", our_client), ("server", our_server), ("both", both_ours))
    cases = [Case("6-first-syn", "first SYN into a silent path: connect() (ms)", lambda: first_syn_run(shim()),
                  lambda: first_syn_run(KERNEL), ("<=", 400.0), value="connect_ms")]
    for (role, make), up in itertools.product(pairs, (False, True)):
        cases.append(Case(f"6-20-blackhole-{role}{'-up' * up}", f"2 x 20 Mbit/s, blackhole, {role} ours, {'up' if up else 'down'}load",
                          lambda make=make, up=up: fetch_run(SLOW, make(), 20 * MB, up, dies("blackhole")),
                          lambda up=up: fetch_run(SLOW, KERNEL_MPTCP, 20 * MB, up, dies("blackhole")),
                          ("<=", 200.0), value="stall_ms", columns=("mbit_s",)))
        cases.append(Case(f"6-again-{role}{'-up' * up}", f"silent for 3 s, {role} ours, {'up' if up else 'down'}load: until it is used again (ms)",
                          lambda make=make, up=up: used_again_run(make, up),
                          lambda up=up: used_again_run(lambda: KERNEL_MPTCP, up),
                          ("<=", 1000.0), value="back_ms", columns=("mbit_s",)))
    return cases


def failover_cases(size):
    def case(how, role, make, up):
        return Case(f"6-{how}-{role}{'-up' * up}", f"{how}, {role} ours, {'up' if up else 'down'}load",
                    lambda: fetch_run(EQUAL, make(), size, up, dies(how)),
                    lambda: fetch_run(EQUAL, KERNEL_MPTCP, size, up, dies(how)),
                    ("<=", 150.0 if how == "link-down" else 400.0), value="stall_ms", columns=("mbit_s",))

    pairs = (("client", our_client), ("server", our_server), ("both", both_ours))
    cases = [case(how, role, make, up) for how in ("link-down", "blackhole") for role, make in pairs for up in (False, True)]
    for how, (role, make) in itertools.product(("link-down", "blackhole"), pairs):
        cases.append(Case(f"6-back-{how}-{role}", f"{how} for 1.5 s, {role} ours: MB over it afterwards",
                          lambda how=how, make=make: fetch_run(EQUAL, make(), size, False, dies_and_returns(how)),
                          lambda how=how: fetch_run(EQUAL, KERNEL_MPTCP, size, False, dies_and_returns(how)),
                          (">=", 3.0), value="back_mb", columns=("mbit_s",)))
    return cases


def speed_cases(quick):
    cases = []
    for offloads, target, size in ((True, 5000.0, GB), (False, 1500.0, GB // 2)):
        options = dict(families="v4", direct=True, offloads=offloads)
        for checksum in ("off", "on"):
            cases.append(Case(
                f"7-offloads-{'on' if offloads else 'off'}-checksum-{checksum}",
                f"offloads {'on' if offloads else 'off'}, DSS checksums {checksum}",
                lambda o=options, c=checksum, s=size: fetch_run(o, both_ours(f"--checksum={c}"), s if not quick else s // 2, digest=False),
                kernel_speed(options, KERNEL_TCP, 4 * size), (">=", target if checksum == "off" else 0.0),
                columns=("cpu_s_per_gb",), kernels={"MPTCP": kernel_speed(options, KERNEL_MPTCP, 4 * size)}))
    return cases


_kernel_speeds = {}


def kernel_speed(options, carrier, size):
    """The kernel does not know of our checksums (and its own are off): measured once for both rows."""
    def run(number):
        key = (options["offloads"], carrier.name, number)
        if key not in _kernel_speeds:
            _kernel_speeds[key] = fetch_run(options, carrier, size, digest=False)
        return _kernel_speeds[key]

    run.numbered = True
    return run


ROUGH = (  # loss, reordering in ms, MB that take a few seconds
    (0.001, 0, 30), (0.01, 0, 10), (0.05, 0, 3), (0, 3, 30), (0, 10, 30), (0, 30, 30), (0.001, 30, 20), (0.01, 10, 10), (0.02, 30, 5),
    (0.05, 30, 3))


def rough_cases(quick):
    """Our TCP against the kernel's on the same path: the peer has no MPTCP, so that it is TCP alone."""
    def case(loss, late, size, way):
        link = dict(rate="50M", delay="10ms", loss=loss)
        link |= dict(reorder=0.05, reorder_delay=f"{late}ms") if late else {}
        one = dict(families="v4", n=1, kernel_mptcp=False, links=[link])
        bytes_ = size * MB // (3 if quick else 1)
        return Case(f"8-loss-{loss * 100:g}-late-{late}-{way}", f"loss {loss * 100:g} %, {late} ms late, {way}load",
                    lambda: fetch_run(one, our_client("--cc=cubic", server=PLAIN), bytes_, way == "up"),
                    lambda: fetch_run(one, KERNEL_TCP, bytes_, way == "up"), (">=", "0.9x"))

    return [case(*rough, way) for rough in ROUGH for way in ("up", "down")]


def buffer_cases(size):
    """NSDI 2012: a slow path that holds more than the receiver's buffer."""
    uneven = dict(families="v4", rate=["8M", "2M"], delay=["10ms", "75ms"], queue=["80ms", "2000ms"])

    def case(role, make, kb):
        run = lambda carrier: fetch_run(uneven, carrier, size, rcvbuf=kb * 1024)
        return Case(f"9-{role}-{kb}", f"download, {role} ours, SO_RCVBUF {kb} KB", lambda: run(make()), lambda: run(KERNEL_MPTCP),
                    (">=", 9.0 if kb >= 500 else 7.6), columns=("share",), kernels={"TCP": lambda: run(KERNEL_TCP)})

    return [case(role, make, kb) for role, make in (("server", our_server), ("both", both_ours), ("client", our_client))
            for kb in (64, 128, 200, 300, 500, 1000)]


def duplex_run(options, carrier, down, up):
    """One connection, so many bytes each way at the same time (duplex.py at both ends, which check what they get)."""
    with two_path(**options) as lab:
        def command(end, *arguments):
            return [*end.get("wrap", ()), PYTHON, HERE / "duplex.py", *["--mptcp"] * bool(end["mptcp"]), *map(str, arguments)]
        server = lab.server.popen(command(carrier.server, "--listen", 8000, down, up), stdout=subprocess.PIPE)
        try:
            if server.stdout.readline() != "ready\n":
                return Run(fault="no server")
            client = lab.client.popen(command(carrier.client, "--connect", "10.10.1.1", 8000, up, down), stdout=subprocess.PIPE)
            said = [parse_last_json(process.communicate(timeout=90)[0]) for process in (client, server)]
        finally:
            lab.server.stop(server)
    faults = [end["error"] for end in said if "error" in end]
    return Run(seconds=max(end["seconds"] for end in said), fault="; ".join(faults))


SIMULT_BYTES, SIMULT_SMALL, SIMULT_QUEUE = 16 << 20, 20 * 4096, "1500k"   # netem's default: 1,000 packets


def duplex_cases():
    """simult_flows sends 16 MiB one way and 80 KB the other, then the reverse: the rows "down" and "up". Both ways at once,
    also with the lab's short queue, is our addition and harder. The bound of all is the script's: 10 % of overhead, 400 + 50 ms."""
    def case(rates, delays, role, make, way, queue=SIMULT_QUEUE):
        options = dict(families="v4", rate=[f"{rate}M" for rate in rates], delay=[f"{delay}ms" for delay in delays], queue=queue)
        bytes_ = {"down": (SIMULT_BYTES, SIMULT_SMALL), "up": (SIMULT_SMALL, SIMULT_BYTES), "both": (SIMULT_BYTES, SIMULT_BYTES)}[way]
        short = "" if queue == SIMULT_QUEUE else f"-queue-{queue}"
        return Case(f"10-{'-'.join(map(str, rates))}-delay-{'-'.join(map(str, delays))}{short}-{role}-{way}",
                    f"{rates} Mbit/s, delays {delays} ms, queue {queue}, {role} ours, 16 MiB {way}",
                    lambda: duplex_run(options, make(), *bytes_), lambda: duplex_run(options, KERNEL_MPTCP, *bytes_),
                    ("<=", round(SIMULT_BYTES * 8e-6 / (0.9 * sum(rates)) + 0.45, 2)), value="seconds")

    roles = (("client", our_client), ("server", our_server))
    return [case(rates, delays, *role, way) for rates in ((10, 10), (15, 5)) for delays in ((0, 0), (1, 25), (25, 1))
            for role in roles for way in ("down", "up", "both")] \
        + [case((10, 10), (0, 0), *role, "both", "100ms") for role in roles]


def all_cases(quick):
    size = 40 * MB if quick else 100 * MB
    return [*throughput_cases(size), *plain_cases(size // 4), *uneven_cases(24 * MB if quick else 40 * MB),
            *failover_cases(40 * MB), *slow_failover_cases(), *payload_cases(), *speed_cases(quick), *rough_cases(quick),
            *buffer_cases(8 * MB if quick else 16 * MB), *duplex_cases()]


# -- measuring

@dataclass
class Result:
    case: Case
    runs: list
    kernel_runs: list
    more: dict                                         # name: runs
    met: Optional[bool] = None

    def median(self, name=None, runs=None):
        runs = self.runs if runs is None else runs
        return statistics.median(getattr(run, name or self.case.value) for run in runs) if runs else None

    def faults(self):
        return [run.fault for run in self.runs if run.fault]


def _call(maker, number):
    """One run; a transfer that breaks the harness is a fault of its own."""
    try:
        return maker(number) if getattr(maker, "numbered", False) else maker()
    except (RuntimeError, subprocess.SubprocessError, OSError, KeyError) as error:
        return Run(fault=f"{type(error).__name__}: {str(error)[-300:]}")


def measure(case, n):
    """n runs of ours, taking turns with n of the kernel's."""
    runs, kernel_runs, more = [], [], {name: [] for name in case.kernels}
    for number in range(1 if getattr(case.run, "once", False) else n):
        runs.append(_call(case.run, number))
        if case.kernel:
            kernel_runs.append(_call(case.kernel, number))
        for name, maker in case.kernels.items():
            more[name].append(_call(maker, number))
    result = Result(case, runs, kernel_runs, more)
    result.met = not result.faults() and _is_met(result)
    return result


def _is_met(result):
    operator, goal = result.case.target
    ours_ = result.median()
    if operator == "within":
        return goal[0] <= ours_ <= goal[1]
    if isinstance(goal, str):
        goal = float(goal[:-1]) * result.median(runs=result.kernel_runs)
    return ours_ >= goal if operator == ">=" else ours_ <= goal


# -- the tables

def _number(value):
    return "" if value is None else f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _target(case):
    operator, goal = case.target
    if operator == "within":
        return f"{goal[0]}..{goal[1]}"
    return "" if goal == 0.0 else f"{operator} {goal if isinstance(goal, str) else _number(goal)}"


COLUMN_NAMES = {"share": "path 0", "cpu_s_per_gb": "CPU-s/GB", "mbit_s": "Mbit/s"}


def header(case):
    """Columns that the cases of a table have in common."""
    names = [COLUMN_NAMES[name] for name in case.columns]
    more = [f"{'kernel ' + name:>12}" for name in case.kernels]
    return f"{'case':34} {'ours':>8} {'kernel':>8}" + "".join(f" {name}" for name in more) + f" {'target':>9}      " \
        + "".join(f"  {name + ' ours/kernel':>24}" for name in names) + "  runs"


def row(result):
    case = result.case
    extra = ""
    for name in case.columns:
        values = [result.median(name), result.median(name, result.kernel_runs), *(result.median(name, runs) for runs in result.more.values())]
        extra += f"  {' / '.join(_number(value) for value in values if value is not None):>24}"
    shown = " ".join(_number(getattr(run, case.value)) for run in result.runs)
    more = "".join(f" {_number(result.median(runs=runs)):>12}" for runs in result.more.values())
    verdict = "ok" if result.met else "MISS"
    faults = "".join(f"\n    ! {fault}" for fault in dict.fromkeys(result.faults()))
    kernel_faults = [run.fault for run in result.kernel_runs if run.fault]
    faults += f"\n    (the kernel's: {kernel_faults[0]})" if kernel_faults else ""
    return (f"{case.name:34} {_number(result.median()):>8} {_number(result.median(runs=result.kernel_runs)):>8}{more} "
            f"{_target(case):>9} {verdict:4}{extra}  {shown}{faults}")


def measure_all(cases, n, show):
    results = []
    for point, group in itertools.groupby(cases, key=lambda case: case.name.split("-")[0]):
        group = list(group)
        show(f"\n{point}. {TITLES[point]}\n{header(group[0])}")
        for case in group:
            results.append(measure(case, n))
            show(row(results[-1]))
    return results


def _as_json(results):
    return [{"case": result.case.name, "text": result.case.text, "value": result.case.value,
             "target": _target(result.case), "met": result.met, "median": result.median(),
             "kernel_median": result.median(runs=result.kernel_runs),
             "runs": [vars(run) for run in result.runs], "kernel_runs": [vars(run) for run in result.kernel_runs],
             "more": {name: [vars(run) for run in runs] for name, runs in result.more.items()}} for result in results]


def chosen(names, cases):
    """A number alone is a table, so that 1 is not 10 as well."""
    def names_it(name, case):
        return case.name.split("-")[0] == name if name.isdigit() else case.name.startswith(name)
    return [case for case in cases if not names or any(names_it(name, case) for name in names)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-n", type=int, help="runs of each; medians are shown [3; 1 with --quick]")
    parser.add_argument("--quick", action="store_true", help="one run of each, smaller files")
    parser.add_argument("--json", metavar="FILE", help="write all runs there")
    parser.add_argument("--list", action="store_true", help="the cases, not run")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="a table's number, a case, or the start of one's name")
    options = parser.parse_args()
    cases = all_cases(options.quick)
    unknown = [name for name in options.cases if not chosen([name], cases)]
    if unknown:
        parser.error(f"no case {unknown[0]}; --list shows all")
    if options.list:
        print("\n".join(f"{case.name:36} {case.text}" for case in cases))
        return 0
    if os.geteuid() or not MPTCP_RUN.exists():
        print("bench needs root, to make network namespaces, and a build (./configure && make)", file=sys.stderr)
        return 1
    n = options.n or (1 if options.quick else 3)
    print(f"medians of {n}; load average {Path('/proc/loadavg').read_text().split()[0]}, {os.cpu_count()} cores")
    results = measure_all(chosen(options.cases, cases), n, lambda line: print(line, flush=True))
    if options.json:
        Path(options.json).write_text(json.dumps(_as_json(results), indent=1))
    missed = [result.case.name for result in results if not result.met]
    print(f"\n{len(results) - len(missed)} of {len(results)} ok" + (f"; missed: {', '.join(missed)}" if missed else ""))
    return 0                                           # a figure missed is a finding, not a failure of the bench


if __name__ == "__main__":
    sys.exit(main())
