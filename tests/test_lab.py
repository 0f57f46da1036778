"""Tests of the lab itself: links do what they were told, and nothing is left behind."""

import json
import signal
import socket
import statistics
import subprocess
import threading
import time
from pathlib import Path

import pytest

from lab import download, make_file, netns, start_fetch, upload
from lab.host import HERE, PYTHON

SMALL = 200_000
SO_RCVBUFFORCE = 33                                    # whatever net.core.rmem_max


def listening(host, address, kind=socket.SOCK_STREAM, port=7000):
    """A socket of the test process, inside a host."""
    with host.inside():
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    sock.settimeout(5)
    sock.bind((address, port))
    if kind == socket.SOCK_STREAM:
        sock.listen()
    return sock


def connected(host, address, kind=socket.SOCK_STREAM, port=7000):
    with host.inside():
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    sock.settimeout(5)
    sock.connect((address, port))
    return sock


def echo_times(net, index=0, n=50, size=100, patience=0.2):
    """Round trips of UDP datagrams, in seconds; None for those lost, which is how long one waits for each."""
    address = net.server.address(index)
    times = []
    with listening(net.server, address, socket.SOCK_DGRAM) as far, \
            connected(net.client, address, socket.SOCK_DGRAM) as near:
        far.settimeout(patience)
        for i in range(n):
            start = time.perf_counter()
            near.send(i.to_bytes(size, "big"))
            try:
                data, sender = far.recvfrom(2000)
            except socket.timeout:
                times.append(None)
                continue
            far.sendto(data, sender)
            near.recv(2000)
            times.append(time.perf_counter() - start)
    return times


def fetch_small(net, **options):
    """A small download with kernel MPTCP sockets at both ends; the server's counters after it."""
    server = net.server.spawn_http("/tmp")
    transfer = download(net.client, server.url(f"size/{SMALL}"), mptcp=True, **options)
    assert transfer.bytes == SMALL
    return net.server.nstat()


# -- connectivity

@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("family", [4, 6])
def test_both_paths_connect_in_both_families(two_path, index, family):
    address = two_path.server.address(index, family)
    with listening(two_path.server, address), connected(two_path.client, address) as near:
        assert near.getsockname()[0] == two_path.client.address(index, family)


def test_families_can_be_chosen(lab):
    net = lab.two_path(families="v6")
    assert net.client.address(0) == ""
    address = net.server.address(1, 6)
    with listening(net.server, address), connected(net.client, address):
        pass


@pytest.mark.parametrize("offloads", [True, False])
def test_direct_has_no_emulator(lab, offloads):
    net = lab.two_path(direct=True, offloads=offloads)
    assert net.link == []
    features = net.client.run(["ethtool", "-k", "eth0"]).stdout
    assert f"generic-segmentation-offload: {'on' if offloads else 'off'}" in features
    fetch_small(net)


@pytest.mark.parametrize("addresses", [1, 2])
def test_client_behind_two_routers_uses_both(lab, addresses):
    net = lab.two_routers(server_addresses=addresses)
    counters = fetch_small(net)
    assert counters["MPTcpExtMPJoinAckRx"] >= 1
    for link in net.link:
        assert link.stats("a2b")["tx_packets"] > 2


def test_nat_hides_the_client(lab):
    net = lab.two_routers(nat=[0])
    with listening(net.server, "10.20.1.1") as far, connected(net.client, "10.20.1.1"):
        assert far.accept()[1][0] == "10.20.1.254"


def test_routes_use_cubic(two_path):
    address = two_path.server.address(0)
    with listening(two_path.server, address) as far, connected(two_path.client, address) as near:
        for sock in (far.accept()[0], near):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).startswith(b"cubic")


def test_strict_rp_filter_is_set(lab):
    net = lab.two_path(rp_filter=1)
    text = net.client.run(["cat", "/proc/sys/net/ipv4/conf/eth1/rp_filter"]).stdout
    assert text == "1\n"


@pytest.mark.parametrize("where", ["client", 1])
def test_firewall_drops_what_conntrack_calls_invalid(lab, where):
    """A segment in the middle of nowhere is dropped, a real connection passes."""
    net = lab.two_routers(firewall=where)
    fetch_small(net)
    guard = net.client if where == "client" else net.hosts["router1"]
    script = ("from scapy.all import IP, TCP, send; "
              "send(IP(src='10.10.2.2', dst='10.20.2.1')/TCP(sport=1, dport=2, flags='A'), iface='eth1', verbose=0)")
    net.client.run([PYTHON, "-c", script])
    rules = guard.run(["nft", "-j", "list", "table", "inet", "lab_firewall"]).stdout
    counters = [part["counter"]["packets"] for rule in json.loads(rules)["nftables"] if "rule" in rule
                for part in rule["rule"]["expr"] if "counter" in part]
    assert sum(counters) >= 1


# -- the links

@pytest.mark.timing
def test_delay_is_that_asked_for(lab):
    net = lab.two_path(delay=["10ms", "2ms"])
    for index, expected in ((0, 0.020), (1, 0.004)):
        median = statistics.median(echo_times(net, index))
        assert expected - 0.0005 < median < expected + 0.0015


@pytest.mark.timing
@pytest.mark.parametrize("rate", [10e6, 100e6])
def test_rate_is_that_asked_for(lab, rate):
    """Frames of a saturated link leave at its rate, whatever is dropped before it."""
    net = lab.two_path(rate=int(rate), delay="1ms")
    server = net.server.spawn_http("/tmp", mptcp=False)
    running = start_fetch(net.client, server.url(f"size/{int(rate / 8 * 2.2)}"), digest=False)
    time.sleep(0.8)
    before, start = net.link[0].stats("b2a")["tx_bytes"], time.monotonic()
    time.sleep(1)
    after, end = net.link[0].stats("b2a")["tx_bytes"], time.monotonic()
    assert (after - before) * 8 / (end - start) == pytest.approx(rate, rel=0.02)
    running.result()


def test_queue_is_bounded_in_bytes_and_in_time(lab):
    net = lab.two_path(rate="2M", families="v4", links=[{"queue": "30k"}, {"queue": "50ms"}])   # a slow sender overruns it too
    for index, limit in ((0, 30 * 1024), (1, 12_500)):
        address = net.server.address(index)
        with listening(net.server, address, socket.SOCK_DGRAM), \
                connected(net.client, address, socket.SOCK_DGRAM) as near:
            for _ in range(100):
                near.send(bytes(1400))
        stats, end = net.link[index].stats("a2b"), time.monotonic() + 10
        while stats["rx_packets"] < 100 or stats["queue_drops"] < stats["rx_packets"] - stats["tx_packets"]:
            assert time.monotonic() < end, stats       # some are under way still
            time.sleep(0.02)
            stats = net.link[index].stats("a2b")
        assert limit - 1500 < stats["max_queued_bytes"] <= limit
        assert stats["queue_drops"] == stats["rx_packets"] - stats["tx_packets"] > 50


def test_loss_is_seeded_and_near_its_probability(lab):
    patterns = []
    for _ in range(2):
        net = lab.two_path(delay="0ms", rate=0, families="v4")
        net.link[0].set("a2b", loss=0.1, seed=7)
        patterns.append([t is None for t in burst(net, 1000)])
    assert patterns[0] == patterns[1]
    assert 70 < sum(patterns[0]) < 130


def burst(net, n):
    """Sends n numbered datagrams on path 0; what arrived, None for the lost."""
    address = net.server.address(0)
    got = [None] * n
    with listening(net.server, address, socket.SOCK_DGRAM) as far, \
            connected(net.client, address, socket.SOCK_DGRAM) as near:
        far.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 22)
        for i in range(n):
            near.send(i.to_bytes(4, "big"))
            time.sleep(0.0001)
        far.settimeout(1)
        try:
            for place in range(n):
                got[int.from_bytes(far.recv(100), "big")] = place
        except socket.timeout:
            pass
    return got


def test_drop_next_loses_exactly_so_many(lab):
    net = lab.two_path(delay="0ms", families="v4")
    burst(net, 1)                                      # ARP is done
    net.link[0].set("a2b", drop_next=3)
    got = burst(net, 20)
    assert [i for i, place in enumerate(got) if place is None] == [0, 1, 2]


def test_reordering_and_duplicates(lab):
    net = lab.two_path(delay="1ms", families="v4")
    net.link[0].set("a2b", reorder=0.1, reorder_delay="2ms", duplicate=0.1)
    got = burst(net, 300)
    stats = net.link[0].stats("a2b")
    assert stats["reordered"] > 10 and stats["duplicated"] > 10
    places = [place for place in got if place is not None]
    assert places != sorted(places)


def test_jitter_keeps_the_order(lab):
    net = lab.two_path(delay="1ms", families="v4")
    net.link[0].set("a2b", jitter="3ms")
    got = burst(net, 300)
    assert got == sorted(got)


@pytest.mark.timing
def test_blackhole_swallows_everything_until_it_ends(lab):
    net = lab.two_path(families="v4")
    times = []
    for on in (False, True, False):
        net.link[0].blackhole(on)
        times.append(echo_times(net, n=3))
    assert None not in times[0] and times[1] == [None] * 3 and None not in times[2]
    assert net.link[0].stats("a2b")["blackholed"] == 3


def test_carrier_loss_is_seen_by_the_host(two_path):
    def carrier():
        return "LOWER_UP" in two_path.client.ip("link", "show", "eth0")
    assert carrier()
    two_path.link[0].carrier(False)
    assert not carrier()
    two_path.link[0].carrier(True)
    assert carrier()
    assert None not in echo_times(two_path, n=3, patience=5)


def test_link_up_gives_routes_back(two_path):
    before = two_path.client.ip("route")
    two_path.client.link_down(0)
    assert "eth0" not in two_path.client.ip("route")
    two_path.client.link_up(0)
    assert sorted(two_path.client.ip("route").split("\n")) == sorted(before.split("\n"))


def test_unknown_settings_are_refused(two_path):
    with pytest.raises(ValueError):
        two_path.link[0].set(colour=1)
    with pytest.raises(ValueError):
        two_path.link[0].set(rate="fast")
    with pytest.raises(ValueError):
        two_path.link[0].hook("no-such-box")


@pytest.mark.timing
def test_no_frames_are_lost_or_oversize_at_300_mbit(lab):
    net = lab.two_path(rate="300M", delay="5ms")
    server = net.server.spawn_http("/tmp", mptcp=False)
    transfer = download(net.client, server.url("size/60000000"), digest=False)
    assert transfer.mbit_s > 200
    for stats in net.link[0].stats().values():
        assert (stats["rx_overruns"], stats["oversize"], stats["tx_errors"]) == (0, 0, 0)


# -- middleboxes, seen with the kernel's MPTCP

@pytest.mark.timing
def test_kernel_mptcp_uses_both_paths(two_path):
    file = make_file(4 << 20)
    server = two_path.server.spawn_http(file.root)
    transfer = download(two_path.client, server.url(file.name), mptcp=True)
    counters = two_path.server.nstat()
    assert transfer.sha256 == file.sha256
    assert counters["MPTcpExtMPCapableSYNRX"] == counters["MPTcpExtMPCapableACKRX"] == 1
    assert counters["MPTcpExtMPJoinSynRx"] == counters["MPTcpExtMPJoinAckRx"] == 1
    assert transfer.received["eth0"] > 1 << 20 and transfer.received["eth1"] > 1 << 20


@pytest.mark.parametrize("hook, direction", [("strip-syn", "a2b"), ("strip-synack", "b2a"), ("strip-all", "both")])
def test_stripping_the_handshake_makes_the_kernel_fall_back(two_path, hook, direction):
    two_path.link[0].hook(hook, direction=direction)
    counters = fetch_small(two_path)
    assert counters["MPTcpExtMPJoinSynRx"] == 0
    if hook == "strip-synack":
        assert counters["MPTcpExtMPCapableFallbackACK"] == 1
    else:
        assert counters["MPTcpExtMPCapableSYNRX"] == 0


def test_stripping_later_segments_makes_the_kernel_fall_back(two_path):
    two_path.link[0].hook("strip-nonsyn")
    counters = fetch_small(two_path)
    assert counters["MPTcpExtMPCapableSYNRX"] == 1
    assert counters["MPTcpExtMPCapableACKRX"] == 0
    assert two_path.link[0].stats("a2b")["hook_changes"] > 0


def test_stripping_applies_to_ipv6(two_path):
    two_path.link[0].hook("strip-syn", direction="a2b")
    server = two_path.server.spawn_http("/tmp")
    download(two_path.client, server.url(f"size/{SMALL}", family=6), mptcp=True)
    assert two_path.server.nstat()["MPTcpExtMPCapableSYNRX"] == 0
    assert two_path.link[0].stats("a2b")["hook_changes"] == 1


def test_stripped_segments_have_good_checksums(two_path):
    two_path.link[0].hook("strip-all")
    with two_path.client.capture("eth0") as path:
        fetch_small(two_path)
    bad = two_path.client.run(["tshark", "-r", path, "-o", "tcp.check_checksum:TRUE", "-Y",
                               'tcp.checksum.status == "Bad" and ip.src == 10.10.1.1'], check=False)
    assert bad.stdout == ""


def test_mptcp_syns_can_be_dropped(two_path):
    """The kernel tries twice more, then without MPTCP."""
    two_path.client.sysctl({"mptcp/syn_retrans_before_tcp_fallback": 0})
    two_path.link[0].hook("drop-syn")
    fetch_small(two_path)
    assert two_path.link[0].stats("a2b")["hook_drops"] >= 1
    assert two_path.server.nstat()["MPTcpExtMPCapableSYNRX"] == 0


# -- servers and measurements

def test_uploads_are_verified_by_the_server(two_path):
    file = make_file(1 << 20, seed=3)
    server = two_path.server.spawn_http("/tmp")
    assert upload(two_path.client, server.url("x"), file, mptcp=True).sha256 == file.sha256


@pytest.mark.needs("nginx", "mptcpize", "curl")
def test_nginx_speaks_mptcp_and_takes_uploads(two_path):
    root = Path(two_path.server.scratch("www-"))
    file = make_file(1 << 20)
    server = two_path.server.spawn_nginx(root)
    two_path.client.run(["mptcpize", "run", "curl", "-sST", file.path, server.url("up")])
    assert (root / "up").read_bytes() == file.path.read_bytes()
    assert two_path.server.nstat()["MPTcpExtMPCapableACKRX"] == 1


@pytest.mark.timing
def test_stall_meter_finds_a_blackhole(two_path):
    server = two_path.server.spawn_http("/tmp")
    running = start_fetch(two_path.client, server.url("size/6000000"))
    time.sleep(0.5)
    two_path.link[0].blackhole()
    time.sleep(0.5)
    two_path.link[0].blackhole(False)
    assert 0.45 < running.result().longest_gap_s < 3


def test_run_times_out_and_ends_the_program(two_path):
    with pytest.raises(subprocess.TimeoutExpired):
        two_path.client.run(["sleep", "33"], timeout=0.2)
    assert netns.processes(two_path.client.ns) == []


# -- the end

def test_nothing_is_left_behind(lab):
    net = lab.two_path()
    process = net.client.popen(["sh", "-c", "setsid sleep 44 & sleep 44"])
    names = [net.client.ns, net.server.ns, net.wire_ns]
    time.sleep(0.1)
    net.close()
    assert process.poll() is not None
    assert not any((netns.RUN_DIR / name).exists() for name in names)


SCRIPT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from lab import two_path
net = two_path()
net.client.popen(["sleep", "55"])
print(net.client.ns, net.server.ns, net.wire_ns, flush=True)
time.sleep(30)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_nothing_behind(lab, number):
    """After SIGKILL it is the next lab that cleans up."""
    def heed():                                        # a shell's background job ignores SIGINT, and so would what it starts
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
    process = subprocess.Popen([PYTHON, "-c", SCRIPT, HERE.parent], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True, preexec_fn=heed)
    names = process.stdout.readline().split()
    assert len(names) == 3 and all((netns.RUN_DIR / name).exists() for name in names)
    process.send_signal(number)
    process.wait(10)
    process.stdout.close()
    if number == signal.SIGKILL:
        netns.sweep()
    assert not any((netns.RUN_DIR / name).exists() for name in names)


def test_labs_do_not_meet(lab):
    """Two labs at once, with the same addresses."""
    nets = [lab.two_path(), lab.two_path()]
    threads = [threading.Thread(target=fetch_small, args=(net,)) for net in nets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(net.server.nstat()["MPTcpExtMPCapableSYNRX"] == 1 for net in nets)


def test_the_prompt_has_this_trees_programs(tmp_path):
    script = "for name in mptcp-run mptcp-stat server link; do command -v $name || echo none; done"
    done = subprocess.run([HERE.parent / "lab.sh", "--direct", "sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    said = done.stdout.splitlines()
    assert said[:2] == [str(HERE.parent.parent / name) for name in ("mptcp-run", "mptcp-stat")] and "none" not in said


def test_the_server_ends_what_is_no_request_and_old_http(two_path):
    """As people try it by hand: nothing hangs."""
    server = two_path.server.spawn_http("/")
    for said, answer in (b"hello\r\n\r\n", b"400"), (b"GET /size/3 HTTP/1.0\r\n\r\n", b"200"), (b"GET /size/3 HTTP/1.1\r\nConnection: close\r\n\r\n", b"200"):
        sock = connected(two_path.client, two_path.server.address(), port=server.port)
        sock.sendall(said)
        got = b"".join(iter(lambda: sock.recv(1000), b""))
        assert got.split()[1] == answer, got
        sock.close()
