"""io/ in network namespaces, with a toy protocol in place of the core (tests/io/endpoint.c).

    peers:   client eth0 10.9.0.1, fd09:0::1 ---- 10.9.0.2, fd09:0::2 eth0 server
                    eth1 10.9.1.1, fd09:1::1 ---- 10.9.1.2, fd09:1::2 eth1
"""

import contextlib
import itertools
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from lab.netns import inside

ENDPOINT = os.environ.get("IO_ENDPOINT") or str(Path(__file__).parent.parent / "build/tests/io_endpoint")
LIMIT = 20
PORT = 7000
ONE_GBIT = "tbf rate 1gbit burst 1m limit 8m".split()  # so that a transfer lasts, on a busy machine too, as long as its bytes say
NUMBER = itertools.count()
ADDRESSES = {4: ("10.9.{}.1", "10.9.{}.2"), 6: ("fd09:{}::1", "fd09:{}::2")}

pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make network namespaces"),
              pytest.mark.skipif(not os.path.exists(ENDPOINT), reason="not built: make tests")]


def sh(*command, check=True, **options):
    return subprocess.run(command, check=check, timeout=LIMIT, text=True, capture_output=True, **options).stdout


class Namespace:
    def __init__(self, name):
        self.name = name
        sh("ip", "netns", "add", name)
        self.ip("link", "set", "lo", "up")

    def ip(self, *words, check=True):
        return sh("ip", "-n", self.name, *words, check=check)

    def run(self, *command, **options):
        return sh("ip", "netns", "exec", self.name, *command, **options)

    def sysctl(self, key, value):
        self.run("sysctl", "-qw", f"{key}={value}")

    def nft(self, rules):
        self.run("nft", "-f", "-", input=rules.replace("}", "\n}\n"))

    def endpoint(self, *words):
        """Runs to its end; the JSON objects that it printed."""
        done = subprocess.run(["ip", "netns", "exec", self.name, ENDPOINT, *map(str, words)], timeout=LIMIT, text=True,
                              capture_output=True)
        assert done.returncode in (0, 1), done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def start(self, *words, env=None):
        return subprocess.Popen(["timeout", str(LIMIT), "ip", "netns", "exec", self.name, ENDPOINT, *map(str, words)],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ, **(env or {})))

    def resets(self):
        words = self.run("nstat", "-asz", "TcpOutRsts").split()
        return int(words[words.index("TcpOutRsts") + 1])

    def remove(self):
        sh("ip", "netns", "del", self.name, check=False)


def wire(one, other, i, net=None):
    """A veth pair as eth<i> of both."""
    sh("ip", "link", "add", "name", f"eth{i}", "netns", one.name, "type", "veth",
       "peer", "name", f"eth{i}", "netns", other.name)
    for end, ns in enumerate((one, other)):
        for family in (4, 6):
            nodad = ["nodad"] if family == 6 else []
            prefix = 24 if family == 4 else 64
            ns.ip("addr", "add", f"{ADDRESSES[family][end].format(net or i)}/{prefix}", "dev", f"eth{i}", *nodad)
        ns.ip("link", "set", f"eth{i}", "up")


@contextlib.contextmanager
def namespaces(*names):
    made = []
    try:
        for name in names:
            made.append(Namespace(f"mpio-{os.getpid()}-{next(NUMBER)}-{name}"))
        yield made
    finally:
        for ns in made:
            ns.remove()


@pytest.fixture
def peers():
    with namespaces("client", "server") as (client, server):
        wire(client, server, 0)
        wire(client, server, 1)
        yield client, server


@contextlib.contextmanager
def serving(server, mode="auto"):
    """A server; what it counted stands in the yielded dict afterwards."""
    process = server.start("serve", PORT, mode)
    result = {}
    try:
        assert json.loads(process.stdout.readline()) == {"listen": 0}
        yield result
    finally:
        process.stdin.close()
        for line in process.stdout:
            result.update(json.loads(line))
        assert process.wait(LIMIT) == 0


def send(client, size, family=4, mode="auto", path=0, to=None, corrupt=None):
    local, remote = (a.format(path) for a in ADDRESSES[family])
    [result] = client.endpoint("send", f"eth{path}", local, to or remote, PORT, size, mode, *([corrupt] if corrupt else []))
    return result


# ---- the two paths of packets ----

@pytest.mark.parametrize("family", [4, 6])
def test_raw_path_carries_data_and_the_kernel_sends_no_reset(peers, family):
    client, server = peers
    with serving(server, "raw") as got:
        sent = send(client, 3_000_000, family, "raw")
    assert sent["acked"] == got["received"] == 3_000_000 and got["wrong"] == 0
    assert sent["tx_fast"] == 0
    assert client.resets() == server.resets() == 0


@pytest.mark.parametrize("family", [4, 6])
def test_flow_moves_to_the_fast_path_without_loss_or_copies(peers, family):
    client, server = peers
    with serving(server) as got:
        sent = send(client, 50_000_000, family)
    assert sent["acked"] == got["received"] == 50_000_000 and got["wrong"] == 0
    assert got["out_of_order"] == 0
    assert got["repeated"] == 0 or sent["resent"]      # the toy sends a window again when the receiver was not run for RTO
    assert sent["to_fast"] == 1 and got["to_fast"] == 0
    assert sent["max_slice"] == 64000 and sent["gso"] > 500
    assert client.resets() == server.resets() == 0


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("features", [("tso", "gso"), ("tso", "gso", "gro", "tx")])
def test_fast_path_works_on_an_interface_without_offloads(peers, family, features):
    client, server = peers
    for ns in peers:
        ns.run("ethtool", "-K", "eth0", *itertools.chain(*((f, "off") for f in features)))
    with serving(server) as got:
        sent = send(client, 20_000_000, family)
    assert sent["acked"] == got["received"] == 20_000_000 and got["wrong"] == got["rx_csum"] == 0
    assert sent["to_fast"] == 1


def segment(source, target, sport, dport, flags, wrong=0):
    """An IPv4 packet with a TCP segment whose checksum is off by `wrong`."""
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    tcp = struct.pack("!HHIIBBHHH", sport, dport, 5000, 0, 5 << 4, flags, 1000, 0, 0)
    total = sum(struct.unpack("!16H", addresses + struct.pack("!HH", 6, len(tcp)) + tcp))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    tcp = tcp[:16] + struct.pack("!H", ((total ^ 0xffff) + wrong) & 0xffff) + tcp[18:]
    return struct.pack("!BBHHHBBH", 0x45, 0, 40, 1, 0x4000, 64, 6, 0) + addresses + tcp


SYN, ACK = 2, 16


def test_raw_path_drops_wrong_checksums(peers):
    client, server = peers
    with serving(server) as got, inside(client.name), \
            socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as s:
        s.sendto(segment("10.9.0.1", "10.9.0.2", 1111, PORT, SYN, wrong=1), ("10.9.0.2", 0))
        s.sendto(segment("10.9.0.1", "10.9.0.2", 2222, PORT, SYN), ("10.9.0.2", 0))
        time.sleep(0.3)
    assert got["rx_csum"] == got["connections"] == 1


def test_bytes_changed_by_the_program_are_not_noticed_below(peers):
    """The toy changes bytes before the checksum is made: they arrive."""
    client, server = peers
    with serving(server) as got:
        send(client, 1_000_000, corrupt=10)
    assert got["wrong"] > 0 and got["rx_csum"] == 0


@pytest.mark.parametrize("mode", ["raw", "fast"])
def test_full_queue_is_back_pressure_and_no_loss(peers, mode):
    """A queue discipline that refuses packets (ENOBUFS): they wait in io/ and are sent, in order."""
    client, server = peers
    client.run("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "100mbit", "burst", "70k", "limit", "100k")
    with serving(server) as got:
        sent = send(client, 4_000_000, mode=mode)
    assert sent["acked"] == got["received"] == 4_000_000 and got["wrong"] == 0
    assert sent["tx_queued"] > 10 and sent["tx_drop"] == 0
    assert sent["seconds"] < 2


@pytest.mark.timing
@pytest.mark.parametrize("mode", ["raw", "fast"])
def test_hosts_own_queue_stays_short(peers, mode):
    """The toy offers 2 MB at once; at 40 Mbit/s that would be 400 ms in the queue discipline."""
    client, server = peers
    client.run("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "40mbit", "burst", "70k", "limit", "8m")
    with serving(server) as got:
        process = client.start("send", "eth0", "10.9.0.1", "10.9.0.2", PORT, 8_000_000, mode)
        backlog = []
        for _ in range(10):
            time.sleep(0.12)
            backlog.append(json.loads(client.run("tc", "-s", "-j", "qdisc", "show", "dev", "eth0"))[0]["backlog"])
        sent = json.loads(process.communicate(timeout=LIMIT)[0])
    assert sent["acked"] == got["received"] == 8_000_000 and sent["tx_drop"] == 0
    assert sorted(backlog)[5] < 200_000, backlog
    assert sent["seconds"] < 2.5


def test_interface_that_vanishes_does_no_harm(peers):
    client, server = peers
    with serving(server) as got:
        process = client.start("send", "eth0", "10.9.0.1", "10.9.0.2", PORT, 9_000_000_000, "fast")
        time.sleep(0.3)
        client.ip("link", "del", "eth0")
        error = json.loads(process.communicate(timeout=LIMIT)[0])["err"]
        assert send(client, 1_000_000, path=1)["acked"] == 1_000_000
    assert error != 0 and got["connections"] == 2


# ---- who may connect ----

def test_syn_that_the_hosts_firewall_drops_is_reported(peers):
    client, _ = peers
    client.nft(f"table inet t {{ chain c {{ type filter hook output priority 0; tcp dport {PORT} drop; }} }}")
    result = send(client, 1000)
    assert result["err"] == 1 and not result["up"] and not result["quoted"]  # EPERM


def test_listener_is_closed_by_the_hosts_firewall(peers):
    client, server = peers
    server.nft(f"table inet t {{ chain c {{ type filter hook input priority 0; tcp dport {PORT} drop; }} }}")
    with serving(server, "fast") as got:
        process = client.start("send", "eth0", "10.9.0.1", "10.9.0.2", PORT, 1000, "raw")
        time.sleep(1)
        process.kill()
        process.wait()
    assert got["connections"] == 0


def test_icmp_refusal_is_reported_with_the_quoted_sequence(peers):
    client, server = peers
    server.nft(f"table inet t {{ chain c {{ type filter hook input priority 0; tcp dport {PORT} reject with icmpx admin-prohibited; }} }}")
    for family, errno in ((4, 113), (6, 13)):  # EHOSTUNREACH, EACCES
        result = send(client, 1000, family)
        assert result["err"] == errno and result["quoted"] and not result["no_way"], family


def test_icmp_that_knows_no_way_is_reported_as_that(peers):
    client, server = peers
    server.nft(f"table inet t {{ chain c {{ type filter hook input priority 0; tcp dport {PORT} reject with icmpx host-unreachable; }} }}")
    for family in 4, 6:
        result = send(client, 1000, family)
        assert result["err"] == 113 and result["quoted"] and result["no_way"], family  # EHOSTUNREACH


def test_path_mtu_is_reported(peers):
    client, server = peers
    with namespaces("far") as [far]:
        wire(server, far, 2)
        server.sysctl("net.ipv4.ip_forward", 1)
        server.ip("link", "set", "eth2", "mtu", "1300")
        far.ip("link", "set", "eth2", "mtu", "1300")
        client.ip("route", "add", "10.9.2.0/24", "via", "10.9.0.2")
        far.ip("route", "add", "default", "via", "10.9.2.1")
        with serving(far, "raw"):
            result = send(client, 100_000, mode="raw", to="10.9.2.2")
    assert result["err"] == 90 and result["mtu"] == 1300 and result["quoted"]  # EMSGSIZE


def test_guarded_ports_come_in_blocks_and_nobody_else_gets_them(peers):
    client, _ = peers
    process = client.start("guard", 40)
    ports = json.loads(process.stdout.readline())["ports"]
    listening = client.run("ss", "-Hltn")
    process.stdin.close()
    process.wait(LIMIT)
    assert len(set(ports)) == 40
    assert len({port // 16 for port in ports}) <= 4
    assert all(f":{port} " in listening for port in ports)


def unprivileged(*caps):
    kept = "".join(f",+{c}" for c in caps)
    return ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", f"--inh-caps=-all{kept}",
            f"--ambient-caps=-all{kept}", f"--bounding-set=-all{kept}"]


@pytest.mark.needs("setpriv")
def test_two_capabilities_are_enough_and_none_is_told(peers):
    client, server = peers
    with tempfile.TemporaryDirectory() as directory, serving(server) as got:
        Path(directory).chmod(0o755)
        program = shutil.copy(ENDPOINT, directory)  # where an unprivileged user may run it
        words = [program, "send", "eth0", "10.9.0.1", "10.9.0.2", str(PORT), "9000000", "auto"]
        sent = json.loads(client.run(*unprivileged("net_raw", "net_admin"), *words))
        refused = json.loads(client.run(*unprivileged(), *words, check=False))
    assert sent["acked"] == got["received"] == 9_000_000 and sent["to_fast"] == 1 and sent["port"] > 0
    assert refused == {"failed": 1}


# ---- where the fast path may not go ----

def mac(ns, interface):
    return json.loads(ns.ip("-j", "link", "show", interface))[0]["address"]


def test_flow_stays_raw_where_connections_are_tracked(peers):
    client, server = peers
    rules = "table inet t {{ chain c {{ type filter hook {} priority 0; policy drop; ct state invalid drop; " \
            "ct state established accept; ct state new accept; }} }}"
    server.nft(rules.format("input"))
    client.nft(rules.format("output"))
    client.ip("neigh", "replace", "10.9.0.2", "dev", "eth0", "lladdr", mac(server, "eth0"))
    server.ip("neigh", "replace", "10.9.0.1", "dev", "eth0", "lladdr", mac(client, "eth0"))
    with serving(server) as got:
        sent = send(client, 9_000_000)
    assert sent["acked"] == got["received"] == 9_000_000
    assert sent["to_fast"] == 0


def test_flow_follows_a_neighbour_that_changes_its_address(peers):
    """As a router's stand-in does: it takes over the address and says so."""
    client, server = peers
    server.sysctl("net.ipv4.conf.eth0.arp_notify", 1)
    with serving(server) as got:
        client.run("tc", "qdisc", "add", "dev", "eth0", "root", *ONE_GBIT)
        process = client.start("send", "eth0", "10.9.0.1", "10.9.0.2", PORT, 200_000_000, "auto")
        time.sleep(0.4)
        server.ip("link", "set", "eth0", "address", "02:00:00:00:77:01")
        sent = json.loads(process.communicate(timeout=LIMIT)[0])
    assert sent["acked"] == got["received"] == 200_000_000
    assert sent["stalled"] < 2


# ---- paths ----

class Watch:
    def __init__(self, ns, seconds=LIMIT, **env):
        self.process = ns.start("watch", seconds, env=env)

    def event(self):
        return json.loads(self.process.stdout.readline())

    def until(self, event, name_or_ip):
        while True:
            e = self.event()
            if e["event"] == event and name_or_ip in (e["name"], e["ip"]):
                return e

    def close(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def watch(peers):
    watching = []

    def start(**env):
        watching.append(Watch(peers[0], **env))
        return watching[-1]
    yield start
    for w in watching:
        w.close()


def test_one_address_of_each_family_is_a_path(peers, watch):
    client, _ = peers
    client.ip("addr", "add", "10.9.0.77/24", "dev", "eth0")
    client.ip("link", "add", "docker0", "type", "bridge")
    client.ip("addr", "add", "172.17.0.1/16", "dev", "docker0")
    client.ip("link", "set", "docker0", "up")
    w = watch()
    assert {w.event()["ip"] for _ in range(4)} == {"10.9.0.1", "fd09::1", "10.9.1.1", "fd09:1::1"}
    client.ip("addr", "add", "10.9.1.50/24", "dev", "eth1")
    client.ip("addr", "del", "10.9.1.1/24", "dev", "eth1")
    assert w.event()["event"] == "del"


def test_user_names_interfaces_and_backups(peers, watch):
    w = watch(IO_INTERFACES="-eth0", IO_BACKUP="eth1")
    first = w.event()
    assert first["name"] == "eth1" and first["backup"]


@pytest.mark.timing
def test_link_down_is_told_at_once_and_the_path_comes_back(peers, watch):
    client, server = peers
    w = watch()
    w.until("add", "eth1")
    began = time.monotonic_ns()
    client.ip("link", "set", "eth0", "down")
    gone = w.until("del", "10.9.0.1")
    assert gone["ns"] - began < 100e6
    client.ip("link", "set", "eth0", "up")
    assert w.until("add", "eth0")["ns"] - began < 5e9
    began = time.monotonic_ns()
    client.ip("addr", "del", "10.9.0.1/24", "dev", "eth0")
    assert w.until("del", "10.9.0.1")["ns"] - began < 100e6


def test_lost_carrier_takes_the_path_away(peers, watch):
    client, server = peers
    w = watch()
    w.until("add", "eth1")
    server.ip("link", "set", "eth0", "down")
    w.until("del", "10.9.0.1")


ROUTE_OK, ROUTE_LOCAL, ROUTE_TUNNEL, ROUTE_OTHER = range(4)


def route(client, remote, path=1):
    local = ADDRESSES[6 if ":" in remote else 4][0].format(path)
    return client.endpoint("route", remote, f"eth{path}", local)[0]


def test_second_default_route_makes_a_path_without_rules(peers):
    client, _ = peers
    assert route(client, "198.51.100.1")["err"] != 0
    for i in (0, 1):
        client.ip("route", "add", "default", "via", f"10.9.{i}.2", "dev", f"eth{i}", "metric", str(100 + i))
        client.ip("-6", "route", "add", "default", "via", f"fd09:{i}::2", "dev", f"eth{i}", "metric", str(100 + i))
    for remote, local in (("198.51.100.1", "10.9.0.1"), ("2001:db8:9::1", "fd09::1")):
        for path in (0, 1):
            answer = route(client, remote, path)
            assert answer["route"] and answer["kind"] == ROUTE_OK and answer["name"] == "eth0" and answer["local"] == local


def test_no_path_is_invented(peers):
    """The first default route leads over eth0 only: eth1 does not reach the Internet."""
    client, _ = peers
    client.ip("route", "add", "default", "via", "10.9.0.2")
    client.ip("-6", "route", "add", "default", "via", "fd09:0::2")
    assert not route(client, "198.51.100.1")["route"]
    assert not route(client, "2001:db8:9::1")["route"]
    assert route(client, "10.9.1.2")["route"]
    assert route(client, "fd09:1::2")["route"]


def test_own_addresses_are_the_kernels(peers):
    client, _ = peers
    for own in ("10.9.0.1", "127.0.0.1", "fd09:1::1", "::1"):
        assert route(client, own)["kind"] == ROUTE_LOCAL


def test_traffic_stays_in_the_tunnel_and_under_a_policy_rule(peers):
    client, _ = peers
    client.ip("route", "add", "default", "via", "10.9.0.2", "metric", "100")
    client.ip("route", "add", "default", "via", "10.9.1.2", "metric", "101")
    client.ip("tuntap", "add", "dev", "tun0", "mode", "tun")
    client.ip("link", "set", "tun0", "up")
    client.ip("addr", "add", "10.99.0.1/24", "dev", "tun0")
    client.ip("route", "add", "198.51.100.0/24", "dev", "tun0", check=False)
    answer = route(client, "198.51.100.1")
    assert answer["kind"] == ROUTE_TUNNEL and not answer["route"]
    assert route(client, "203.0.113.1")["route"]
    client.ip("rule", "add", "to", "203.0.113.0/24", "lookup", "123")
    client.ip("route", "add", "default", "via", "10.9.0.2", "table", "123")
    answer = route(client, "203.0.113.1")
    assert answer["kind"] == ROUTE_TUNNEL and not answer["route"]


def test_rules_by_source_address_make_a_path(peers):
    client, _ = peers
    client.ip("route", "add", "default", "via", "10.9.0.2")
    client.ip("rule", "add", "from", "10.9.1.1", "lookup", "2")
    client.ip("route", "add", "default", "via", "10.9.1.2", "dev", "eth1", "table", "2")
    assert route(client, "198.51.100.1")["route"]


def test_replies_hidden_by_strict_rp_filter_are_received(peers):
    """Two default routes; the server's answers to path 2 come in on eth1, where the kernel expects none from it."""
    client, server = peers
    server.ip("addr", "add", "198.51.100.9/32", "dev", "lo")
    server.sysctl("net.ipv4.conf.all.rp_filter", 0)
    for i in (0, 1):
        client.ip("route", "add", "default", "via", f"10.9.{i}.2", "dev", f"eth{i}", "metric", str(100 + i))
    client.sysctl("net.ipv4.conf.all.rp_filter", 1)
    with serving(server) as got:
        client.run("tc", "qdisc", "add", "dev", "eth1", "root", *ONE_GBIT)
        process = client.start("send", "eth1", "10.9.1.1", "198.51.100.9", PORT, 200_000_000, "auto")
        end = time.monotonic() + LIMIT
        while not (guards := client.run("ss", "-Hltn").splitlines()):
            assert time.monotonic() < end
            time.sleep(0.02)
        time.sleep(0.2)                                # it is up, and in the middle of its transfer
        [port] = [int(line.split()[3].rsplit(":", 1)[1]) for line in guards]
        with inside(server.name), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as s:
            for wrong in range(1, 9):
                s.sendto(segment("198.51.100.9", "10.9.1.1", PORT, port, ACK, wrong), ("10.9.1.1", 0))
        sent = json.loads(process.communicate(timeout=LIMIT)[0])
    assert sent["acked"] == got["received"] == 200_000_000
    assert sent["rx_raw"] == 0 and sent["rx_csum"] == 8
    assert client.resets() == 0


def test_doctor_names_what_is_wrong(peers):
    client, _ = peers
    for i in (0, 1):
        client.ip("route", "add", "default", "via", f"10.9.{i}.2", "dev", f"eth{i}", "metric", str(100 + i))
    client.sysctl("net.ipv4.conf.all.rp_filter", 1)
    client.ip("link", "set", "lo", "down")
    lines = client.endpoint("doctor")
    bad = {line["what"].split(":")[0] for line in lines if not line["ok"]}
    assert bad == {"eth1", "lo"}
    assert all(line["remedy"] for line in lines if not line["ok"])
