"""SO_MARK and SO_PRIORITY: what the host's own rules, routes and queues go by, seen there by nftables."""
import re

import pytest
from conftest import MPTCP_RUN, Same
from far import ALONE, ALONE_COUNT

ENGINES = [None, "inside", "helper"]
PORTS, COUNT_PORTS = iter(ALONE), iter(ALONE_COUNT)  # no test counts what another one's connection says late


class Seen:
    """Counts the client's packets, in the hook that its own rules have (o) and behind it, where packet sockets pass too (e).
    PORT is a port of far.py's that nobody else uses: `own` makes it the program's ECHO or COUNT."""

    def __init__(self, host, match, mark, priority, ports=PORTS):
        self.host, self.own = host, ""
        if "PORT" in match:
            port = next(ports)
            self.own, match = f"ECHO = COUNT = {port}\n", match.replace("PORT", str(port))
        tests = {"all": "", "marked": f"meta mark {mark}", "unmarked": f"meta mark != {mark}", "prior": f"meta priority 0:{priority}", "unprior": f"meta priority != 0:{priority}"}
        rules = {hook: "".join(f"{match} {test} counter name {hook}_{name}\n" for name, test in tests.items()) for hook in "oe"}
        counters = {hook: "".join(f"counter {hook}_{name} {{ }}\n" for name in tests) for hook in "oe"}
        host.nft(f"table inet marks {{\n{counters['o']}chain o {{\ntype filter hook output priority 0;\n{rules['o']}}}\n}}\n"
                 f"table netdev marks {{\n{counters['e']}chain e {{\ntype filter hook egress devices = {{ eth0, eth1 }} priority 0;\n{rules['e']}}}\n}}\n")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for family in "inet", "netdev":
            self.host.run(["nft", "delete", "table", family, "marks"])

    def __call__(self, hook="o"):
        text = self.host.run(["nft", "list", "counters"]).stdout
        return {name: int(n) for name, n in re.findall(rf"counter {hook}_(\w+) {{\s+packets (\d+)", text)}


def carried(net, code, engine, **options):
    out, told = Same(net).run(code, engine, **options)
    assert not any("kernel TCP" in line for line in told), told
    return out


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("family", [4, 6])
def test_of_a_connection(net, engine, family):
    """Each packet, the SYNs of all subflows too."""
    with Seen(net.client, "tcp dport PORT", 7, 5) as seen:
        out = carried(net, seen.own + f"""
s = socket.socket(socket.{'AF_INET6' if family == 6 else 'AF_INET'}); s.setsockopt(1, 36, 7); s.setsockopt(1, 12, 5); s.connect(({'FAR6' if family == 6 else 'FAR'}, ECHO)); s.sendall(b'w' * 500); print(len(s.recv(500, socket.MSG_WAITALL)), s.getsockopt(1, 36), s.getsockopt(1, 12))
""", engine)
        n = seen()
    assert out == "500 7 5\n"
    assert n["marked"] >= 3 and n["prior"] >= 3 and n["unmarked"] == 0 and n["unprior"] == 0, n


@pytest.mark.parametrize("engine", ENGINES)
def test_in_mid_connection(net, engine):
    """What is written after setsockopt() has the mark; zero takes it away; IP_TOS sets the priority, as in the kernel."""
    with Seen(net.client, "tcp dport PORT meta length >= 552", 7, 5) as seen:
        out = carried(net, seen.own + """
s = dial(ECHO); s.setsockopt(6, 1, 1)
def say(): s.sendall(b'w' * 500); return len(s.recv(500, socket.MSG_WAITALL))
say(); s.setsockopt(1, 36, 7); s.setsockopt(1, 12, 5); say(); say(); say(); s.setsockopt(1, 36, 0); s.setsockopt(0, 1, 0x10); say(); say(); print(s.getsockopt(1, 36), s.getsockopt(1, 12))
""", engine)
        n = seen()
    assert out == "0 6\n"
    assert n["all"] >= 6 and n["marked"] >= 3 <= n["prior"] and n["unmarked"] >= 3 <= n["unprior"], n
    if engine is None:
        assert n["all"] == 6


@pytest.mark.parametrize("engine", ENGINES)
def test_below_a_listener(net, engine):
    """accept() hands SO_MARK down, not SO_PRIORITY; the SYN/ACK has the mark already."""
    with Seen(net.client, "tcp sport 7399 tcp flags & rst == 0", 8, 3) as seen: # the kernel's resets for segments of no socket have none
        out = carried(net, """
l = socket.socket(); l.setsockopt(1, 2, 1); l.setsockopt(1, 36, 8); l.setsockopt(1, 12, 3); l.bind(("0.0.0.0", 7399)); l.listen(); call(l); c, a = l.accept(); c.sendall(b"z" * 9); print(c.recv(9), c.getsockopt(1, 36), c.getsockopt(1, 12))
""", engine)
        n = seen()
    assert out == "b'zzzzzzzzz' 8 0\n"
    assert n["marked"] >= 3 and n["unmarked"] == 0 and n["unprior"] >= 2, n


@pytest.mark.parametrize("engine", ENGINES)
def test_set_by_a_program_that_inherited_the_socket(net, engine):
    with Seen(net.client, "tcp dport PORT meta length >= 552", 7, 0) as seen:
        carried(net, seen.own + """
s = dial(ECHO); n = s.fileno(); os.set_inheritable(n, True)
pid = os.posix_spawn(sys.executable, [sys.executable, "-c", f"from near import *; s = socket.socket(fileno={n}); s.setsockopt(1, 36, 7); s.sendall(b'w' * 500); s.recv(500)"], os.environ); os.waitpid(pid, 0)
""", engine)
        n = seen()
    assert n["marked"] >= 1 and n["unmarked"] == 0, n


@pytest.mark.parametrize("engine", ["inside", "helper"])
@pytest.mark.parametrize("family", [4, 6])
def test_on_the_fast_path(net, engine, family):
    """Packet sockets pass no rule of the host's, but queues and the hook behind them."""
    with Seen(net.client, "tcp dport PORT", 7, 5, COUNT_PORTS) as seen:
        out = carried(net, seen.own + f"""
s = socket.socket(socket.{'AF_INET6' if family == 6 else 'AF_INET'}); s.setsockopt(1, 36, 7); s.setsockopt(1, 12, 5); s.connect(({'FAR6' if family == 6 else 'FAR'}, COUNT)); s.sendall(b'w' * 3000000); s.shutdown(1); print(s.recv(10))
""", engine, options=("--io=fast",))
        host, behind = seen("o"), seen("e")
    assert out == "b'3000000'\n"
    assert behind["all"] > host["all"] + 10, (host, behind)
    assert behind["marked"] == behind["prior"] == behind["all"] and behind["unmarked"] == 0, behind


@pytest.fixture
def marked_routes(net):
    """Mark 7 goes to the server's first address over eth1, mark 9 is forbidden."""
    for f, rule in (("-4", "10.10.1.1 dev eth1 src 10.10.2.2"), ("-6", "fd00:10:1::1 dev eth1 src fd00:10:2::2")):
        net.client.ip(f, "route", "add", *rule.split(), "table", "100")
        net.client.ip(f, "rule", "add", "fwmark", "7", "lookup", "100")
        net.client.ip(f, "rule", "add", "fwmark", "9", "prohibit")
    mac = net.server.run(["cat", "/sys/class/net/eth1/address"]).stdout.strip()
    net.client.ip("neigh", "replace", "fd00:10:1::1", "lladdr", mac, "dev", "eth1") # for this address nobody answers there
    yield
    net.client.ip("neigh", "del", "fd00:10:1::1", "dev", "eth1")
    for f in "-4", "-6":
        net.client.ip(f, "rule", "del", "fwmark", "7", "lookup", "100")
        net.client.ip(f, "rule", "del", "fwmark", "9", "prohibit")
        net.client.ip(f, "route", "flush", "table", "100")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("far", ["FAR", "FAR6"])
def test_routes_by_mark(net, engine, far, marked_routes):
    """A table that `ip rule fwmark` names is the only way of a connection with this mark: the kernel carries it."""
    with Seen(net.client, 'tcp dport PORT oifname "eth0"', 7, 0) as seen:
        out, _ = Same(net).run(seen.own + f"""
family = socket.AF_INET6 if ":" in {far} else socket.AF_INET; s = socket.socket(family); s.setsockopt(1, 36, 7); s.connect(({far}, ECHO)); s.sendall(b"x"); print(s.recv(1), s.getsockname()[0]); time.sleep(0.3); s.sendall(b"y" * 20000); print(len(s.recv(20000, socket.MSG_WAITALL)))
""", engine)
        n = seen()
    assert out == f"b'x' {'10.10.2.2' if far == 'FAR' else 'fd00:10:2::2'}\n20000\n"
    assert n["all"] == 0, n


def test_a_mark_that_is_forbidden(same, marked_routes):
    same("""
for far in FAR, FAR6: s = socket.socket(socket.AF_INET6 if ":" in far else socket.AF_INET); s.setsockopt(1, 36, 9); print(err(s.connect, (far, ECHO)))
""", carried=None)


@pytest.mark.parametrize("engine", [None, "helper", [MPTCP_RUN, "-v"]], ids=["kernel", "helper", "auto"])
def test_without_privilege(net, engine):
    """setsockopt() refuses; what was set before stays. (An engine inside loses its rights with the program: no packet of such a
    connection leaves any more. Left the choice, the shim takes the helper for it.)"""
    with Seen(net.client, "tcp dport PORT meta length >= 552", 7, 0) as seen:
        out = carried(net, seen.own + """
s = dial(ECHO); s.setsockopt(1, 36, 7); t = socket.socket(); t.setsockopt(1, 36, 7); t.connect((FAR, ECHO)); os.setresuid(65534, 65534, 65534); print(err(s.setsockopt, 1, 36, 8), err(s.setsockopt, 1, 12, 7), err(s.setsockopt, 1, 12, 6), s.getsockopt(1, 36))
for x in s, t: x.sendall(b"x" * 500); print(len(x.recv(500, socket.MSG_WAITALL)))
""", engine)
        n = seen()
    assert out == "EPERM EPERM None 7\n500\n500\n" and n["unmarked"] == 0 < n["marked"], (out, n)


@pytest.mark.parametrize("engine", ["inside", "helper"])
def test_a_number_is_not_believed(net, engine):
    """Who asks the engine for a mark (CTL_SETOPT) must show the socket that has it: the program may have no right to it."""
    with Seen(net.client, "tcp dport PORT", 7, 0) as seen:
        out = carried(net, seen.own + """
s = dial(ECHO); peer, own, n = ctypes.create_string_buffer(28), ctypes.create_string_buffer(28), ctypes.c_uint(16)
libc.syscall(52, s.fileno(), peer, ctypes.byref(n)); libc.syscall(51, s.fileno(), own, ctypes.byref(n)) # as the kernel names them
for fds in [], [os.open("/dev/null", 0)]:
    u = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); u.connect("\\0mpshim-id/%08x" % struct.unpack_from("!I", peer, 4))
    socket.send_fds(u, [struct.pack("=HHi28x28s28sII4xQ", 2, 6, os.getpid(), own.raw, peer.raw, 0, 14, 7).ljust(176, b"\\0")], fds); rep = u.recv(1000); print(struct.unpack_from("i", rep, 4)[0])
s.sendall(b"w" * 500); s.recv(500)
""", engine)
        n = seen()
    assert out.split() == ["-1", "0"] and n["marked"] == 0 and n["all"] >= 3, (out, n)


@pytest.mark.parametrize("engine", ["inside", "helper"])
def test_a_mark_that_leaves_a_policy_table(net, engine):
    """As what a VPN's own packets have: without the mark one path, with it all that the main table has."""
    ways = ("-4", "10.10.0.0/16"), ("-6", "fd00:10::/32")
    for family, everything in ways:
        net.client.ip(family, "route", "add", everything, "dev", "eth0", "table", "100")
        net.client.ip(family, "rule", "add", "not", "fwmark", "7", "lookup", "100")
    try:
        code = "s = socket.socket(); s.setsockopt(1, 36, MARK); s.connect((FAR, ECHO)); s.sendall(b'x'); print(s.recv(1)); time.sleep(0.4); wait(lambda: len(s.getsockopt(0x4d50, 4, 960)) == 320 * PATHS); s.sendall(b'y')"
        for mark, paths in (0, 1), (7, 2):
            out, told = Same(net).run(code.replace("MARK", str(mark)).replace("PATHS", str(paths)), engine)
            assert out == "b'x'\n" and sum("MPTCP over" in line for line in told) and len(set(re.findall(r"eth\d", told[-1]))) == paths, (mark, told)
    finally:
        for family, everything in ways:
            net.client.ip(family, "rule", "del", "not", "fwmark", "7", "lookup", "100")
            net.client.ip(family, "route", "flush", "table", "100")
