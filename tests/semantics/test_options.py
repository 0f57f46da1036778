"""Socket options: what is set is read back, means the same, and reaches the wire."""
import re

import pytest
from conftest import MPTCP_RUN


def test_kind_of_socket(same):
    same("""
SO_TYPE, SO_DOMAIN, SO_PROTOCOL, SO_ACCEPTCONN = 3, 39, 38, 30
s, t = dial(ECHO), socket.create_connection((FAR6, ECHO)); l = listen(); call(l); c, a = l.accept()
for x in (s, t, l, c): print([x.getsockopt(1, o) for o in (SO_TYPE, SO_DOMAIN, SO_PROTOCOL, SO_ACCEPTCONN)])
""", "[1, 2, 6, 0]\n[1, 10, 6, 0]\n[1, 2, 6, 1]\n[1, 2, 6, 0]")


# name, level, option, values
PLAIN = [("TCP_NODELAY", 6, 1, (1, 0)), ("TCP_CORK", 6, 3, (1, 0)), ("SO_KEEPALIVE", 1, 9, (1, 0)), ("TCP_KEEPIDLE", 6, 4, (5, 100)),
         ("TCP_KEEPINTVL", 6, 5, (3, 75)), ("TCP_KEEPCNT", 6, 6, (2, 9)), ("TCP_USER_TIMEOUT", 6, 18, (5000, 0)), ("TCP_SYNCNT", 6, 7, (3,)),
         ("TCP_LINGER2", 6, 8, (30,)), ("TCP_DEFER_ACCEPT", 6, 9, (3,)), ("TCP_QUICKACK", 6, 12, (1,)),
         ("TCP_THIN_LINEAR_TIMEOUTS", 6, 16, (1,)), ("TCP_NOTSENT_LOWAT", 6, 25, (16384,)), ("TCP_INQ", 6, 36, (1, 0)), ("TCP_FASTOPEN_CONNECT", 6, 30, (0,)),
         ("SO_RCVLOWAT", 1, 18, (5, 1)), ("SO_PRIORITY", 1, 12, (4,)), ("SO_MARK", 1, 36, (7, 0)), ("SO_OOBINLINE", 1, 10, (1, 0)), ("SO_BUSY_POLL", 1, 46, (0,)),
         ("SO_REUSEADDR", 1, 2, (1,)), ("SO_REUSEPORT", 1, 15, (1,)), ("SO_DONTROUTE", 1, 5, (1, 0)), ("SO_TIMESTAMP", 1, 29, (1, 0)), ("SO_ZEROCOPY", 1, 60, (1,)),
         ("SO_RCVBUF", 1, 8, (100000,)), ("SO_SNDBUF", 1, 7, (100000,)), ("SO_MAX_PACING_RATE", 1, 47, (1000000,)),
         ("IP_TOS", 0, 1, (0x10, 0x28, 0)), ("IP_TTL", 0, 2, (33,)), ("IP_MTU_DISCOVER", 0, 10, (2,)), ("IP_RECVERR", 0, 11, (1,)), ("IP_FREEBIND", 0, 15, (1,)),
         ("IP_TRANSPARENT", 0, 19, (1, 0)), ("IP_MINTTL", 0, 21, (1,)), ("IP_PKTINFO", 0, 8, (1, 0)), ("IP_RECVTOS", 0, 13, (1,))]


@pytest.mark.parametrize("part", range(4))
def test_options_before_and_after_connect(same, part):
    """Each option on a socket of its own; one line of output each."""
    same(f"""
for option, level, opt, values in {[p for p in PLAIN if p[0] not in ("SO_MARK", "TCP_QUICKACK")][part::4]}:
    s = socket.socket(); out = [option, err(s.getsockopt, level, opt)]
    for v in values: out += [err(s.setsockopt, level, opt, v), err(s.getsockopt, level, opt)]
    s.connect((FAR, ECHO)); out.append(err(s.getsockopt, level, opt))
    for v in values: out += [err(s.setsockopt, level, opt, v), err(s.getsockopt, level, opt)]
    s.setsockopt(1, 18, 1); s.setsockopt(6, 3, 0); s.sendall(b"x"); print(*out, s.recv(1))
""")


def test_quickack_and_mark(same):
    """TCP_QUICKACK changes by itself."""
    same("s = dial(ECHO); print(err(s.setsockopt, 6, 12, 1), err(s.setsockopt, 6, 12, 0), err(s.setsockopt, 1, 36, 7), s.getsockopt(1, 36)); s.sendall(b'x'); print(s.recv(1))")


@pytest.mark.parametrize("level,opt", [(41, 67), (41, 16), (41, 26)], ids=["IPV6_TCLASS", "IPV6_UNICAST_HOPS", "IPV6_V6ONLY"])
def test_ipv6_option(same, level, opt):
    same(f"""
s = socket.socket(socket.AF_INET6); v = s.getsockopt({level}, {opt}); print(v, err(s.setsockopt, {level}, {opt}, 0 if {opt} == 26 else 40)); s.connect((FAR6, ECHO)); print(s.getsockopt({level}, {opt}), err(s.setsockopt, {level}, {opt}, 1 if {opt} == 26 else 60), s.getsockopt({level}, {opt}))
""")


def test_mss(same):
    """TCP_MAXSEG of a connection is the path's, not the loopback's."""
    out = same("s = dial(ECHO); s.sendall(b'x'); s.recv(1); print(1200 < s.getsockopt(6, 2) < 1461)", "True")
    assert out
    same("s = socket.socket(); print(s.getsockopt(6, 2)); s.setsockopt(6, 2, 1000); print(s.getsockopt(6, 2)); s.connect((FAR, ECHO)); s.sendall(b'x'); s.recv(1); print(800 < s.getsockopt(6, 2) <= 1000)")


def test_congestion_control(same):
    same("""
s = socket.socket(); a = s.getsockopt(6, 13, 16); print(len(a)); s.setsockopt(6, 13, b"reno"); print(s.getsockopt(6, 13, 16)); s.connect((FAR, ECHO)); print(err(s.setsockopt, 6, 13, b"cubic"), s.getsockopt(6, 13, 16), err(s.setsockopt, 6, 13, b"nonsense"))
""")


def test_the_engines_congestion_controls(same):
    """Those that this kernel does not have, before and after connect() and below a listener; mptcp-stat shows what is used."""
    out, _ = same.run("""
s = socket.socket(); print(err(s.setsockopt, 6, 13, b"olia"), s.getsockopt(6, 13, 16), err(s.setsockopt, 6, 13, b"nonsense")); s.connect((FAR, ECHO)); s.sendall(b"x"); s.recv(1); print(s.getsockopt(6, 13, 16))
s.setsockopt(6, 13, b"wvegas"); s.sendall(b"y" * 100000); n = 0
while n < 100000: n += len(s.recv(65536))
print(s.getsockopt(6, 13, 16), s.getsockopt(6, 13, 4))
l = listen(); l.setsockopt(6, 13, b"balia"); call(l); c, a = l.accept(); c.sendall(b"z"); print(c.recv(1), c.getsockopt(6, 13, 16))
t = socket.socket(); t.setsockopt(6, 13, b"lia"); t.connect(("127.0.0.1", l.getsockname()[1])); print(b"lia" in t.getsockopt(6, 13, 16))
u = socket.socket(); print(err(u.setsockopt, 6, 13, b""), err(u.setsockopt, 17, 13, b"olia"), err(socket.socket(socket.AF_UNIX).setsockopt, 6, 13, b"olia"))
import re; print(sorted(re.findall(r'"cc": *"([a-z]+)"', subprocess.run([STAT, "--json", "-i", "0"], capture_output=True, text=True).stdout)))
""".replace("STAT", repr(str(MPTCP_RUN.with_name("mptcp-stat")))), "helper")
    olia, wvegas, balia = (repr(n + bytes(16 - len(n))) for n in (b"olia", b"wvegas", b"balia"))
    assert out.splitlines()[:6] == [f"None {olia} ENOENT", olia, f"{wvegas} b'wveg'", f"b'z' {balia}", "False", "EINVAL ENOPROTOOPT ENOTSUP"], out
    assert "'balia'" in out and "'wvegas'" in out, out


def test_upper_layer_protocol(same):
    """TCP_ULP: none; an unknown one is refused in the kernel's words."""
    same("s = dial(ECHO); print(err(s.getsockopt, 6, 31, 16), err(s.setsockopt, 6, 31, b'nonsense'))")


def test_tcp_info(same):
    """Retransmissions: that they agree with each other. A busy machine makes tail loss probes; unit tcp_loss has exact figures."""
    same("""
s = dial(ECHO); s.sendall(b"x" * 50000); n = 0
while n < 50000: n += len(s.recv(65536))
def info():
    i = s.getsockopt(6, 11, 248); u8 = i[:8]; u32 = struct.unpack_from("24I", i, 8); u64 = struct.unpack_from("4Q", i, 104)
    return dict(state=u8[0], retransmits=u8[2], options=u8[5] & 1, wscale=u8[6] != 0, rto=200000 <= u32[0] < 3000000, mss=1000 < u32[2] < 1461, rcv_mss=u32[3] < 1461, unacked=u32[4],
        pmtu=u32[13], rtt=0 < u32[15] < 1000000, cwnd=u32[18] >= 1, advmss=u32[19] < 1461, retrans=(u32[23] > 0) == (struct.unpack_from("Q", i, 208)[0] > 0), acked=u64[2] >= 50000, received=u64[3] >= 50000, sent=struct.unpack_from("Q", i, 200)[0] >= 50000, notsent=struct.unpack_from("I", i, 144)[0], min_rtt=0 < struct.unpack_from("I", i, 148)[0] <= u32[15])
wait(lambda: info()["unacked"] == 0); print(info()); s.shutdown(1); over(s); time.sleep(0.3); print(s.getsockopt(6, 11, 248)[0], len(s.getsockopt(6, 11, 8)), len(s.getsockopt(6, 11, 104)), len(s.getsockopt(6, 11, 500)) >= 232)
print(socket.socket().getsockopt(6, 11, 8)[0])
""")


def test_what_the_network_carries_is_in_tcp_info(same):
    same("""
s = dial(STALL); s.setblocking(False); n = 0
for i in range(4):
    while isinstance(r := err(s.send, b"x" * 65536), int): n += r
    time.sleep(0.2)
i = s.getsockopt(6, 11, 248); acked, notsent = struct.unpack_from("Q", i, 120)[0], struct.unpack_from("I", i, 144)[0]
print(n - 400000 < notsent + acked <= n + 1, acked < 300000)
""", "True True")


def test_error_once(same):
    same("s = dial(RESET); s.send(b'x'); over(s); print(name(s.getsockopt(1, 4)), s.getsockopt(1, 4), len(s.getsockopt(1, 4, 1)), len(s.getsockopt(1, 4, 8)))")


def test_wrong_options(same):
    same("""
s = dial(ECHO)
for level, opt in ((6, 999), (1, 999), (0, 999), (41, 999), (99, 1), (17, 1)): print(err(s.getsockopt, level, opt), err(s.setsockopt, level, opt, 1))
print(err(s.setsockopt, 6, 1, b""), err(s.setsockopt, 6, 1, b"ab"), err(s.setsockopt, 6, 4, 0), err(s.setsockopt, 6, 6, 1000))
""")


def test_mptcp_level_of_a_tcp_socket(same):
    """SOL_MPTCP belongs to sockets of IPPROTO_MPTCP."""
    same("s = socket.socket(); print(err(s.getsockopt, 284, 1, 100)); l = listen(); print(err(l.getsockopt, 284, 1, 100))", carried=None)


def test_not_possible_options_fail_as_on_an_old_kernel(same):
    """TCP_REPAIR, TCP_MD5SIG and the like make a socket the kernel's before connect(); afterwards: ENOPROTOOPT."""
    out, told = same.run("s = dial(ECHO); print(err(s.setsockopt, 6, 19, 1), err(s.setsockopt, 6, 14, b'\\0' * 216), err(s.setsockopt, 6, 19, 1)); s.close()", "inside")
    assert out == "ENOPROTOOPT ENOPROTOOPT ENOPROTOOPT\n"
    assert sum("TCP_REPAIR" in line for line in told) == 1, told


def test_attached_filter_is_the_programs_affair(same):
    same("""
s = dial(ECHO); s.sendall(b"x"); s.recv(1); f = struct.pack("HBBI", 6, 0, 0, 0xffffffff); b = ctypes.create_string_buffer(f); p = struct.pack("HxxxxxxP", 1, ctypes.addressof(b))
print(err(s.setsockopt, 1, 26, p), err(s.setsockopt, 1, 27, 0)); s.sendall(b"y"); print(s.recv(1))
""")


def test_peer_credentials_and_name(same):
    same("s = dial(ECHO); print(s.getsockopt(1, 17, 12) == struct.pack('iII', 0, 0xffffffff, 0xffffffff)); a = s.getsockopt(1, 28, 16); print(socket.inet_ntoa(a[4:8]), err(socket.socket().getsockopt, 1, 28, 16))")


def test_incoming_device_and_mtu(same):
    """IP_MTU is the path's; SO_BINDTODEVICE reads empty; SO_INCOMING_CPU and SO_INCOMING_NAPI_ID exist."""
    same("s = dial(ECHO); s.sendall(b'x'); s.recv(1); print(s.getsockopt(0, 14), s.getsockopt(1, 25, 16), s.getsockopt(1, 49) in range(os.cpu_count()), err(s.getsockopt, 1, 56) != 'ENOPROTOOPT')")


def test_packet_options(same):
    """IP_PKTOPTIONS of a TCP socket: IP_PKTINFO tells its own address."""
    same("""
def get(s):
    b, n = ctypes.create_string_buffer(200), ctypes.c_int(200); r = libc.getsockopt(s.fileno(), 0, 9, b, ctypes.byref(n)); out, at = [], 0
    while at + 16 <= n.value: k, level, kind = struct.unpack_from("Qii", b, at); out.append((level, kind, socket.inet_ntoa(b[at + 20:at + 24]), socket.inet_ntoa(b[at + 24:at + 28])) if kind == 8 else (level, kind, b[at + 16:at + k])); at += (k + 7) & ~7
    return r, out
s = socket.socket(); s.setsockopt(0, 8, 1); s.setsockopt(0, 2, 44); s.connect((FAR, ECHO)); print(get(s)); l = socket.socket(); l.setsockopt(0, 8, 1); l.bind(("0.0.0.0", 0)); l.listen(); call(l); c, a = l.accept(); print(get(c))
""")


# ---- on the wire


def seen(net, code, engine, expression, options=()):
    """tcpdump's lines of the client's packets while the program ran."""
    with net.server.capture("eth0", expression=expression) as path:
        from conftest import Same
        Same(net).run(code, engine, options=options)
    return net.server.run(["tcpdump", "-nvr", path]).stdout


@pytest.mark.parametrize("engine", [None, "inside", "helper"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_tos_and_ttl_reach_the_wire(net, engine, when):
    sets = "s.setsockopt(0, 1, 0x48); s.setsockopt(0, 2, 33); "
    code = f"s = socket.socket(); {sets if when == 'before' else ''}s.connect((FAR, ECHO)); {sets if when == 'after' else ''}time.sleep(0.1); s.sendall(b'w' * 500); s.recv(500)"
    out = seen(net, code, engine, f"src 10.10.1.2 and tcp port {7101}")
    data = [line for line in out.split("\n") if re.search(r"tos 0x", line) or "ttl" in line]
    assert any("tos 0x48" in line and "ttl 33," in line for line in data), out
    if when == "before":
        assert all("tos 0x48" in line and "ttl 33," in line for line in data), out


@pytest.mark.parametrize("engine", [None, "inside", "helper"])
def test_traffic_class_and_hops_reach_the_wire(net, engine):
    code = "s = socket.socket(socket.AF_INET6); s.setsockopt(41, 67, 0x48); s.setsockopt(41, 16, 33); s.connect((FAR6, ECHO)); s.sendall(b'w' * 500); s.recv(500)"
    out = seen(net, code, engine, f"src fd00:10:1::2 and tcp port {7101}")
    lines = [line for line in out.split("\n") if "hlim" in line]
    assert lines and all("class 0x48" in line and "hlim 33," in line for line in lines), out

