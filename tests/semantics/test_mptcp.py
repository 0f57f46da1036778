"""Programs that know MPTCP: IPPROTO_MPTCP and SOL_MPTCP, compared with the kernel's MPTCP."""
import pytest
from conftest import MPTCP_RUN

MADE = """
def made(family=2): return socket.socket(family, socket.SOCK_STREAM, 262)
s = made(); s.connect((FAR, ECHO)); s.sendall(b"x" * 1000); n = 0
while n < 1000: n += len(s.recv(1000))
wait(lambda: s.getsockopt(284, 1, 96)[0]); time.sleep(0.4)  # the join is up, and what is said of it
"""


def test_socket_of_mptcp(same):
    same("""
s = socket.socket(2, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 262); print(s.getsockopt(1, 38), s.getsockopt(1, 3), s.getsockopt(1, 39), os.get_blocking(s.fileno()), os.get_inheritable(s.fileno()), err(s.connect, (FAR, ECHO)))
select.select([], [s], [], 5); s.send(b"x"); select.select([s], [], [], 5); print(s.recv(1), s.getsockopt(1, 38), s.getpeername()); print(err(socket.socket, 2, socket.SOCK_DGRAM, 262), err(socket.socket, 1, socket.SOCK_STREAM, 262))
""")


def test_listener_of_mptcp(same):
    same("""
l = socket.socket(2, socket.SOCK_STREAM, 262); l.bind(("0.0.0.0", 0)); l.listen(); call(l); s, a = l.accept(); s.sendall(b"x"); print(s.recv(1), a[0], l.getsockopt(1, 38), s.getsockopt(1, 38), len(s.getsockopt(284, 1, 48)))
""", "b'x' 10.10.1.1 262 262 48")


def test_loopback_is_the_kernels(same):
    same("l = socket.create_server(('127.0.0.1', 0)); s = socket.socket(2, socket.SOCK_STREAM, 262); s.connect(l.getsockname()); c, a = l.accept(); s.send(b'x'); print(c.recv(1), s.getsockopt(1, 38))", "b'x' 262", carried=None)


def test_info(same):
    same(MADE + """
i = s.getsockopt(284, 1, 96); u = struct.unpack_from("6B2xIIQQQ3B", i); print(u[6] & 2, u[7] != 0, u[8] - u[9], u[10] != 0, u[13] in (0, 1), u[0] >= 1)
print(len(s.getsockopt(284, 1, 4)), len(s.getsockopt(284, 1, 48)), err(s.getsockopt, 284, 99, 4)); t = made(); print(s.getsockopt(284, 1, 96) != t.getsockopt(284, 1, 96), t.getsockopt(284, 1, 6)[0])
""")


def test_bytes_in_info(same):
    same(MADE + "print(*struct.unpack_from('QQQ', s.getsockopt(284, 1, 96), 56), s.getsockopt(284, 1, 96)[80] >= 2)", "1000 1000 1000 True")


def test_subflow_addresses(same):
    same(MADE + """
def subflows(opt, size, n=8):
    b = ctypes.create_string_buffer(struct.pack("4I", 16, 0, 0, size) + b"\\0" * size * n); l = ctypes.c_int(len(b.raw) - 1); r = libc.getsockopt(s.fileno(), 284, opt, b, ctypes.byref(l))
    return (r, name(ctypes.get_errno())) if r else (*struct.unpack_from("4I", b.raw), l.value, b.raw[16:])
a = subflows(3, 256); print(a[0], a[1] >= 2, a[2:4], a[4] == 16 + 256 * a[1])
addrs = sorted({(socket.inet_ntoa(a[5][256 * k + 4:256 * k + 8]), socket.inet_ntoa(a[5][256 * k + 132:256 * k + 136])) for k in range(a[1])}); print(("10.10.1.2", "10.10.1.1") in addrs, len(addrs) >= 2, {struct.unpack_from("!H", a[5], 130)[0]})
t = subflows(2, 104); print(t[0], t[1] == a[1], t[3], t[4] == 16 + 104 * t[1], t[5][0], 0 < struct.unpack_from("I", t[5], 68)[0] < 60000, 1000 < struct.unpack_from("I", t[5], 16)[0] < 1461)
print(subflows(3, 256, 1)[4], subflows(3, 0)[0:4:3])
b = ctypes.create_string_buffer(16); l = ctypes.c_int(8); print(libc.getsockopt(s.fileno(), 284, 3, b, ctypes.byref(l)), name(ctypes.get_errno())); l = ctypes.c_int(16); print(libc.getsockopt(s.fileno(), 284, 3, b, ctypes.byref(l)), name(ctypes.get_errno()))
""")


def test_full_info(same):
    same(MADE + """
sf, ti = ctypes.create_string_buffer(264 * 8), ctypes.create_string_buffer(104 * 8)
b = ctypes.create_string_buffer(struct.pack("6IQQ", 0, 104, 0, 264, 0, 8, ctypes.addressof(sf), ctypes.addressof(ti)) + b"\\0" * 96); l = ctypes.c_int(136); r = libc.getsockopt(s.fileno(), 284, 4, b, ctypes.byref(l)); u = struct.unpack_from("6I", b.raw)
print(r, l.value, u[1], u[3] in (260, 264), u[4] >= 2, u[5], socket.inet_ntoa(sf.raw[8 + 4 - 4 * (u[3] == 260):][:4]) in ("10.10.1.2", "10.10.2.2"), ti.raw[0], b.raw[40] >= 1)
""")


INFO = """
NAMES = "subflows add_addr_signal add_addr_accepted subflows_max add_addr_signal_max add_addr_accepted_max flags token write_seq snd_una rcv_nxt local_addr_used local_addr_max csum_enabled retransmits bytes_retrans bytes_sent bytes_received bytes_acked subflows_total last_data_sent last_data_recv last_ack_recv".split()
def info(s): return dict(zip(NAMES, struct.unpack("6B2xIIQQQ3BxIQQQQB3xIII", s.getsockopt(284, 1, 200)[:96])))
def exchange(s, n):
    s.sendall(b"e" * n); got = 0
    while got < n: got += len(s.recv(65536))
"""


def test_each_field_of_info(same):
    """struct mptcp_info, field by field, as the kernel's MPTCP fills it for the same traffic."""
    same(MADE + INFO + """
exchange(s, 60000); wait(lambda: info(s)["write_seq"] == info(s)["snd_una"]); time.sleep(1); i, j = info(s), info(s)
print({k: i[k] for k in "add_addr_signal flags retransmits bytes_sent bytes_received bytes_acked".split()}, i["token"] == j["token"] != 0, i["bytes_retrans"] <= 61000)
print(i["subflows"] >= 1, i["subflows_total"] == i["subflows"] + 1, i["local_addr_used"] <= i["subflows"], i["subflows_max"] >= i["subflows"], i["local_addr_max"] >= i["local_addr_used"], i["add_addr_accepted_max"] >= i["add_addr_accepted"])
print(*(400 <= i[k] < 5000 for k in ("last_data_sent", "last_data_recv", "last_ack_recv")), i["snd_una"] != i["rcv_nxt"]); exchange(s, 5000); k = info(s)
print(k["write_seq"] - i["write_seq"], k["rcv_nxt"] - i["rcv_nxt"], k["bytes_sent"] - i["bytes_sent"], k["bytes_received"] - i["bytes_received"], k["last_data_sent"] < 400, k["last_data_recv"] < 400)
""")


def test_info_through_a_connections_life(same):
    """Before connect(), while connecting, of a listener and below it, after each side's end, after a reset; counters never fall."""
    same(MADE + INFO + """
def say(s): i = info(s); return {k: i[k] for k in "flags subflows_total bytes_sent bytes_received bytes_acked retransmits bytes_retrans".split()}, i["token"] != 0
t = made(); print(say(t)); t.setblocking(False); t.connect_ex((FAR, 9)); time.sleep(0.1); print(info(t)["bytes_sent"]); l = made(); l.bind(("0.0.0.0", 0)); l.listen(); print(say(l)); call(l); c, a = l.accept(); exchange(c, 3000); wait(lambda: info(c)["bytes_acked"] == 3000); print(say(c)[0]["flags"], say(c)[0]["bytes_sent"], say(c)[0]["bytes_received"], info(c)["subflows_total"] >= 1)
last = info(s); rising = True
def watch():
    global last, rising
    i = info(s); rising &= all(i[k] >= last[k] for k in NAMES if k.startswith("bytes") or k in ("write_seq", "snd_una", "rcv_nxt")); last = i
for n in range(20): exchange(s, 20000); watch()
tok = last["token"]; s.shutdown(1); print(s.recv(1)); time.sleep(0.5); watch(); i = info(s); print(rising, i["bytes_sent"], i["bytes_received"], i["bytes_acked"], i["flags"] & 1)
r = made(); r.connect((FAR, RESET)); r.send(b"x"); time.sleep(0.5); r.recv(9); print(err(r.recv, 1)); time.sleep(0.2); i = info(r); print(i["bytes_sent"], i["bytes_received"], i["flags"] & 1, i["subflows_total"])
""")


def test_sizes_of_arrays(same):
    """MPTCP_TCPINFO, MPTCP_SUBFLOW_ADDRS: lengths and sizes, asked for and answered; what is wrong with them."""
    same(MADE + """
time.sleep(0.3)
def ask(opt, n, head, fill=b"\\xee"):
    b, l = ctypes.create_string_buffer(struct.pack("4I", *head) + fill * 3000, 3016), ctypes.c_int(n); r = libc.getsockopt(s.fileno(), 284, opt, b, ctypes.byref(l)); h = struct.unpack_from("4I", b)
    return name(ctypes.get_errno()) if r else (l.value - 16, h[0], h[1] >= 2, h[2] >= 104, min(h[3], 104), b.raw[l.value:] == fill * (3016 - l.value))
for opt in 2, 3:
    for n in 0, 8, 15, 16, 17, 24, 60, 116, 120, 121, 224, 3000: print(opt, n, ask(opt, n, (16, 0, 0, 104))) if n < 200 else print(opt, n, ask(opt, n, (16, 0, 0, 104))[1:5])
    for head in (0, 0, 0, 104), (15, 0, 0, 104), (24, 0, 0, 104), (3001, 0, 0, 104), (16, 1, 0, 104), (16, 0, 1, 104), (16, 0, 0, 0), (16, 0, 0, 1), (16, 0, 0, 100000), (16, 0, 0, 0x80000000), (0x80000000, 0, 0, 1): r = ask(opt, 300, head); print(opt, head, r if isinstance(r, str) else r[1:])
print(ask(99, 300, (16, 0, 0, 104)), err(s.setsockopt, 284, 1, 1), err(s.setsockopt, 284, 99, 1), type(err(s.getsockopt, 284, 1, 0)), len(s.getsockopt(284, 1, 1)), len(s.getsockopt(284, 1, 95)), len(s.getsockopt(284, 1, 96)))
bad, l = ctypes.c_void_p(8), ctypes.c_int(96)
for opt in 1, 2, 3, 4: print(libc.getsockopt(s.fileno(), 284, opt, bad, ctypes.byref(l)), name(ctypes.get_errno()), libc.getsockopt(s.fileno(), 284, opt, ctypes.create_string_buffer(200), bad), name(ctypes.get_errno()))
""")


def test_each_field_of_full_info(same):
    """Sizes and counts, short arrays, ids, and that it agrees with the other answers."""
    same(MADE + INFO + """
time.sleep(0.3)
def full(n=136, tcp=104, sf=264, room=8, before=(0, 0, 0)):
    a, t = ctypes.create_string_buffer(b"\\xee" * 264 * 8, 264 * 8), ctypes.create_string_buffer(b"\\xee" * 104 * 8, 104 * 8)
    b = ctypes.create_string_buffer(struct.pack("6IQQ", before[0], tcp, before[1], sf, before[2], room, ctypes.addressof(a), ctypes.addressof(t)) + b"\\xee" * 96); l = ctypes.c_int(n); r = libc.getsockopt(s.fileno(), 284, 4, b, ctypes.byref(l))
    return (0, l.value, b.raw, a.raw, t.raw) if r == 0 else (name(ctypes.get_errno()),)
r, n, b, a, t = full(); u = struct.unpack_from("6I", b); print(n, u[0] >= 104, u[1], u[2] in (260, 264), u[3] == u[2], u[4] >= 2, u[5])
ids = [struct.unpack_from("I", a, k * u[3])[0] for k in range(u[4])]; print(ids[0], ids == sorted(set(ids)), t[0], t[104], a[u[3] * u[4]:] == b"\\xee" * (264 * 8 - u[3] * u[4]), t[104 * u[4]:] == b"\\xee" * (104 * (8 - u[4])))
at = u[3] - 256; ends = [(struct.unpack_from("H", a, k * u[3] + at)[0], socket.inet_ntoa(a[k * u[3] + at + 4:][:4]), socket.inet_ntoa(a[k * u[3] + at + 132:][:4]), struct.unpack_from("!H", a, k * u[3] + at + 130)[0]) for k in range(u[4])]; print(ends[0], ("10.10.2.2" in {e[1] for e in ends}), {e[0] for e in ends}, {e[3] for e in ends}, struct.unpack_from("!H", a, at + 2)[0] == s.getsockname()[1])
i = dict(zip(NAMES, struct.unpack("6B2xIIQQQ3BxIQQQQB3xIII", b[40:136]))); j = info(s); print({k for k in NAMES if i[k] != j[k] and not k.startswith("last_")})
r, n, b, a, t = full(room=1); u = struct.unpack_from("6I", b); print(u[4] >= 2, u[5], a[u[3]:] == b"\\xee" * (264 * 8 - u[3]), t[104:] == b"\\xee" * 104 * 7)
r, n, b, a, t = full(tcp=8, sf=4); u = struct.unpack_from("6I", b); print(u[1], u[3], a[8:12] == b"\\xee" * 4 or u[4] > 2, t[0], t[8])
print(full(n=39), full(n=40)[:2], full(n=48)[:2], full(n=136, before=(1, 0, 0)), full(before=(0, 1, 0)), full(before=(0, 0, 1)), full(tcp=0x80000000), full(sf=0x80000000), full(room=0)[:2], full(tcp=0, sf=0)[:2])
""")


def test_each_subflows_tcp_info(same):
    """struct tcp_info of each subflow: what of it both fill means the same. When each was last used differs from run to run with the
    kernel too: that is compared for the connection (above)."""
    same(MADE + INFO + """
for n in range(10): exchange(s, 30000)
time.sleep(1); b = ctypes.create_string_buffer(struct.pack("4I", 16, 0, 0, 232) + b"\\0" * 232 * 8); l = ctypes.c_int(len(b.raw) - 1); print(libc.getsockopt(s.fileno(), 284, 2, b, ctypes.byref(l))); n = struct.unpack_from("I", b, 4)[0]
tcp = []
for k in range(n):
    i = b.raw[16 + 232 * k:][:232]; u = struct.unpack_from("24I", i, 8); q = struct.unpack_from("4Q", i, 104)
    tcp.append(dict(state=i[0], ca=i[1], retransmits=i[2], probes=i[3], backoff=i[4], options=i[5] & 7, wscale=i[6] & 15 > 0 and i[6] >> 4 > 0, rto=200000 <= u[0] < 1000000, snd_mss=1300 < u[2] < 1461, rcv_mss=500 < u[3] < 1461, unacked=u[4], sacked=u[5], lost=u[6], retrans=u[7], fackets=u[8], pmtu=u[13], rtt=0 < u[15] < 200000, rttvar=u[16] < 200000, cwnd=u[18] >= 1, advmss=u[19], reordering=u[20] >= 3))
    tcp[-1].update(acked=q[2], received=q[3], sent=struct.unpack_from("Q", i, 200)[0], min_rtt=0 < struct.unpack_from("I", i, 148)[0] <= u[15] + 1000, snd_wnd=struct.unpack_from("I", i, 228)[0] > 10000)
same = [{k: v for k, v in t.items() if k not in ("acked", "received", "sent")} for t in tcp]; print(*same[0].items(), sep="\\n"); print([x for x in same if x != same[0]]); print(sum(t["acked"] for t in tcp) >= 301000, sum(t["received"] for t in tcp) >= 301000, sum(t["sent"] for t in tcp) >= 301000)
""")


@pytest.fixture
def no_kernel_mptcp(net):
    net.client.sysctl({"mptcp/enabled": 0})
    yield
    net.client.sysctl({"mptcp/enabled": 1})


@pytest.mark.parametrize("engine", ["inside", "helper", "never"])
def test_works_without_mptcp_in_the_kernel(same, no_kernel_mptcp, engine):
    code = "s = socket.socket(2, socket.SOCK_STREAM, 262); s.connect((FAR, ECHO)); s.sendall(b'x'); print(s.recv(1), err(s.getsockopt, 284, 1, 4) in ('ENOTSUP', 'ENOPROTOOPT'))"
    out, _ = same.run(code, [MPTCP_RUN, f"--engine={engine}"])
    assert out == f"b'x' {engine == 'never'}\n"
