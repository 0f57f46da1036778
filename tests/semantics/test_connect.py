"""connect() and what comes before it and after its failure."""
import pytest


def test_epoll_registered_before_connect(same):
    same("""
s = socket.socket(); s.setblocking(False); e = select.epoll()
e.register(s, select.EPOLLOUT | select.EPOLLIN | select.EPOLLRDHUP)
print(events(e.poll(1)[0][1]))
print(err(s.connect, (FAR, ECHO)))
print(wait(lambda: [events(m) for f, m in e.poll(0)] == ["OUT"]), s.getsockopt(1, 4))
s.send(b"x"); print(wait(lambda: [events(m) for f, m in e.poll(0)] == ["IN OUT"]), s.recv(2))
""", "OUT HUP\nEINPROGRESS\nTrue 0\nTrue b'x'")


def test_a_pending_connect_says_so(same):
    """To an address that drops everything: state, addresses, sending and receiving meanwhile."""
    same("""
s = socket.socket(); s.setblocking(False)
print(err(s.connect, ("10.10.1.77", 80)), err(s.connect, ("10.10.1.77", 80)), err(s.connect, ("10.10.1.78", 81)))
print(err(s.getpeername), s.getsockname()[0], s.getsockname()[1] != 0, s.getsockopt(1, 4))
print(err(s.send, b"x"), err(s.recv, 1), err(s.shutdown, 5), select.select([s], [s], [], 0.1)[:2])
""", carried=None)


def test_connected_twice(same):
    same("""
s = dial(ECHO); print(err(s.connect, (FAR, ECHO)), err(s.connect, (FAR, COUNT)), err(s.listen, 5), err(s.bind, ("0.0.0.0", 0)))
s.setblocking(False); print(err(s.connect, (FAR, ECHO)))
t = socket.socket(); t.connect((FAR, ECHO)); print(err(t.connect, (FAR, ECHO)))
""", "None EISCONN EINVAL EINVAL\nEISCONN\nEISCONN")


def test_nonblocking_connect_asked_again_when_up(same):
    """As libevent and others do: connect() itself tells the result."""
    same("""
s = socket.socket(); s.setblocking(False); print(err(s.connect, (FAR, ECHO)))
select.select([], [s], [], 5); print(err(s.connect, (FAR, ECHO)), err(s.connect, (FAR, ECHO)))
""", "EINPROGRESS\nNone EISCONN")


@pytest.mark.parametrize("way", ["blocking", "nonblocking", "poll", "timeout"])
def test_refused(same, way):
    same({"blocking": "s = socket.socket(); print(err(s.connect, (FAR, NOBODY)), s.getsockopt(1, 4), err(s.getpeername))",
          "nonblocking": """
s = socket.socket(); s.setblocking(False); print(err(s.connect, (FAR, NOBODY)) in ("EINPROGRESS", "ECONNREFUSED"))
select.select([], [s], [], 5); print(name(s.getsockopt(1, 4)), s.getsockopt(1, 4), err(s.send, b"x"), err(s.recv, 1))""",
          "poll": """
s = socket.socket(); s.setblocking(False); err(s.connect, (FAR, NOBODY)); p = select.poll(); p.register(s, select.POLLIN | select.POLLOUT)
wait(lambda: p.poll(100)); print([events(m) for f, m in p.poll(0)]); print(err(s.connect, (FAR, NOBODY)))""", # tcp_poll() looks at the state before the error: in the very moment of a reset on another processor it says ERR alone
          "timeout": "s = socket.socket(); s.settimeout(5); print(err(s.connect, (FAR, NOBODY)))"}[way])


def test_an_icmp_error_on_the_error_queue(same, net):
    """IP_RECVERR, IPV6_RECVERR: the destination and the error; who sent it the engine does not tell (AF_UNSPEC)."""
    net.server.nft("table inet reject_us {\n chain i {\n type filter hook input priority 0;\n tcp dport 9997 reject with icmpx type host-unreachable;\n }\n}\n")
    try:
        same("""
for far, fam, level, opt in ((FAR, 2, 0, 11), (FAR6, 10, 41, 25)):
    s = socket.socket(fam); s.setsockopt(level, opt, 1); print(err(s.connect, (far, 9997))); d, anc, flags, to = s.recvmsg(200, 200, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
    print([(l, t, struct.unpack_from("IBBB", v), struct.unpack_from("H", v, 16)[0] in (0, fam)) for l, t, v in anc], flags, to)
""")
    finally:
        net.server.run(["nft", "delete", "table", "inet", "reject_us"])


def test_refused_is_told_by_read(same):
    """SO_ERROR not asked for: the first call on the socket reports it, later ones see a socket that is not connected."""
    same("""
s = socket.socket(); s.setblocking(False); err(s.connect, (FAR, NOBODY)); select.select([], [s], [], 5)
print(err(s.recv, 1), err(s.recv, 1), err(s.send, b"x"))
""", "ECONNREFUSED b'' EPIPE")


def test_unreachable(same):
    same("""
s = socket.socket(); print(err(s.connect, ("203.0.113.1", 80)))
s = socket.socket(); s.setblocking(False); print(err(s.connect, ("203.0.113.1", 80)))
s = socket.socket(socket.AF_INET6); print(err(s.connect, ("2001:db8::1", 80)))
""", "ENETUNREACH\nENETUNREACH\nENETUNREACH", carried=None)


def test_unreachable_host_nonblocking(same):
    same("""
s = socket.socket(); s.setblocking(False); print(err(s.connect, ("10.10.1.77", 80)))
print(bool(select.select([], [s], [], 8)[1]), name(s.getsockopt(1, 4)), s.getsockopt(1, 4))
""", "EINPROGRESS\nTrue EHOSTUNREACH 0")


@pytest.fixture
def blackhole(net):
    """Nothing answers on this port."""
    net.server.nft("table ip hole {\n chain i {\n type filter hook input priority 0;\n tcp dport 9999 drop;\n }\n}\n")
    yield 9999
    net.server.run(["nft", "delete", "table", "ip", "hole"])


@pytest.mark.parametrize("block", [True, False])
def test_timed_out(same, blackhole, block):
    """A host that drops: TCP_USER_TIMEOUT ends the attempt."""
    same(f"""
s = socket.socket(); s.setblocking({block}); s.setsockopt(6, 18, 1500); a = time.monotonic(); e = err(s.connect, (FAR, 9999))
if not {block}: print(e, len(select.select([], [s], [], 10)[1])); e = name(s.getsockopt(1, 4))
print(e, 1 < time.monotonic() - a < 6)
""", ("" if block else "EINPROGRESS 1\n") + "ETIMEDOUT True", carried=None)


def test_connect_timeout_by_so_sndtimeo(same, blackhole):
    same("""
s = socket.socket(); s.setsockopt(1, socket.SO_SNDTIMEO, struct.pack("ll", 0, 300000)); a = time.monotonic()
print(err(s.connect, (FAR, 9999)), 0.2 < time.monotonic() - a < 2, err(s.connect, (FAR, 9999)))
""", "EINPROGRESS True EALREADY", carried=None)


def test_interrupted_connect(same, blackhole):
    """EINTR without SA_RESTART; the attempt goes on in the background, and the next connect() says EALREADY."""
    same("""
s = socket.socket(); sa = struct.pack("=HH4s8x", 2, socket.htons(9999), socket.inet_aton(FAR))
signal.signal(signal.SIGALRM, lambda *a: None); signal.siginterrupt(signal.SIGALRM, True); signal.setitimer(signal.ITIMER_REAL, 0.3)
print(libc.connect(s.fileno(), sa, len(sa)), name(ctypes.get_errno()))
s.setblocking(False); print(libc.connect(s.fileno(), sa, len(sa)), name(ctypes.get_errno()))
""", "-1 EINTR\n-1 EALREADY", carried=None)


def test_reconnecting_a_failed_socket(same):
    same("""
s = socket.socket(); print(err(s.connect, (FAR, NOBODY)), err(s.connect, (FAR, NOBODY)), err(s.connect, (FAR, ECHO)))
s.sendall(b"z"); print(s.recv(1), s.getpeername())
""")


def test_reconnecting_a_failed_nonblocking_socket(same):
    same("""
s = socket.socket(); s.setblocking(False); err(s.connect, (FAR, NOBODY)); select.select([], [s], [], 5)
print(name(s.getsockopt(1, 4))); print([err(s.connect, (FAR, ECHO)) for i in range(2)]); select.select([], [s], [], 5)
print(s.getsockopt(1, 4)); s.send(b"z"); select.select([s], [], [], 5); print(s.recv(1), s.getpeername())
""")


UNSPEC = "def unspec(s): return libc.connect(s.fileno(), b'\\0' * 16, 16), name(ctypes.get_errno())\n"


def test_unspec_dissolves_a_connection(same):
    same(UNSPEC + """
s = dial(ECHO); s.sendall(b"a"); print(s.recv(1), unspec(s), err(s.getpeername), err(s.recv, 1), err(s.send, b"x"))
print(err(s.connect, (FAR, ECHO))); s.sendall(b"b"); print(s.recv(1), s.getpeername()[0])
""")


def test_unspec_ends_a_pending_connect(same):
    same(UNSPEC + """
s = socket.socket(); s.setblocking(False); print(err(s.connect, ("10.10.1.77", 80)), unspec(s))
s.setblocking(True); print(err(s.connect, (FAR, ECHO))); s.sendall(b"b"); print(s.recv(1), s.getpeername()[0])
""")


def test_unspec_resets_the_peer(same):
    same(UNSPEC + "s = dial_keep(b'abc'); time.sleep(0.2); print(unspec(s), kept())", "(0, 0) 3 ba7816bf8f01cfea Connection reset by peer")


def test_addresses_of_wrong_length(same):
    same("""
v4 = struct.pack("=HH4s8x", 2, socket.htons(ECHO), socket.inet_aton(FAR)); v6 = struct.pack("=HH I 16s I", 10, socket.htons(ECHO), 0, socket.inet_pton(10, FAR6), 0)
def c(f, a, n): return libc.connect(socket.socket(f).detach(), a, n), name(ctypes.get_errno())
for n in (0, 1, 2, 8, 15, 16, 20): print(n, c(2, v4 + b"\\0" * 8, n))
for n in (2, 16, 23, 24, 27, 28): print(n, c(10, v6, n))
print(c(2, v6, 28), c(10, v4, 16), c(2, None, 16))
""", carried=None)


def test_names_into_short_buffers(same):
    """getpeername() and accept() write what there is room for and tell the full length; a negative one is EINVAL."""
    same("""
def get(f, s, n):
    b, l = ctypes.create_string_buffer(b"\\xee" * 40, 40), ctypes.c_int(n); r = f(s.fileno(), b, ctypes.byref(l))
    return r, name(ctypes.get_errno()) if r else 0, l.value, b.raw[:2].hex(), b.raw[4:n].hex() if n > 4 else "", b.raw[max(n, 0):40] == b"\\xee" * (40 - max(n, 0))
s, t = dial(ECHO), socket.create_connection((FAR6, ECHO))
for n in (0, 1, 2, 6, 8, 15, 16, 20): print(n, get(libc.getpeername, s, n), get(libc.getsockname, s, n))
for n in (2, 16, 24, 28, 40): print(n, get(libc.getpeername, t, n), get(libc.getsockname, t, n))
print(get(libc.getpeername, s, -1), get(libc.getsockname, s, -1))
l = listen(); l6 = listen(socket.AF_INET6)
for n in (0, 2, 8, 16, 20):
    call(l); b, ln = ctypes.create_string_buffer(b"\\xee" * 40, 40), ctypes.c_int(n); r = libc.accept(l.fileno(), b, ctypes.byref(ln)); print(n, r > 0, ln.value, b.raw[:2].hex(), b.raw[4:n].hex() if n > 4 else "", b.raw[n:] == b"\\xee" * (40 - n))
""")


def test_mapped_addresses(same):
    same("""
s = socket.socket(socket.AF_INET6); s.connect(("::ffff:" + FAR, ECHO)); s.sendall(b"m"); print(s.recv(1), s.getpeername(), s.getsockname()[0])
t = socket.socket(socket.AF_INET6); t.setsockopt(41, socket.IPV6_V6ONLY, 1); print(err(t.connect, ("::ffff:" + FAR, ECHO)))
""")


def test_bound_to_a_port_first(same):
    """Such a connection is the kernel's: the port is the program's wish."""
    same("""
s = socket.socket(); s.bind(("", 0)); p = s.getsockname()[1]; s.connect((FAR, ECHO)); s.sendall(b"p"); print(s.recv(1), s.getsockname() == (NEAR, p))
""", "b'p' True", carried=False)


def test_bound_to_a_port_after_a_failure(same):
    """The port that a failed connect() leaves is no wish; the one of a later bind() is. (It lies below those that others are given.)"""
    same("""
s = socket.socket(); s.setsockopt(1, socket.SO_REUSEADDR, 1); print(err(s.connect, (FAR, NOBODY))); s.bind(("", 25678)); s.connect((FAR, ECHO)); s.sendall(b"p"); print(s.recv(1), s.getsockname() == (NEAR, 25678))
""", "ECONNREFUSED\nb'p' True", carried=None)


def test_bound_to_nothing(same):
    """bind() to any address and any port with IP_BIND_ADDRESS_NO_PORT chooses nothing: carried."""
    same("""
s = socket.socket(); s.setsockopt(0, 24, 1); s.bind(("0.0.0.0", 0)); s.connect((FAR, ECHO)); s.sendall(b"p"); print(s.recv(1), s.getsockname()[0])
""", "b'p' 10.10.1.2")


def test_bound_to_a_device(same):
    same("""
s = socket.socket(); s.setsockopt(1, socket.SO_BINDTODEVICE, b"eth0"); s.connect((FAR, ECHO)); s.sendall(b"p"); print(s.recv(1), s.getsockname()[0], s.getsockopt(1, socket.SO_BINDTODEVICE, 16))
""", carried=False)


def test_port_zero_and_strange_destinations(same):
    same("""
for a in ((FAR, 0), ("0.0.0.0", NOBODY), ("224.0.0.1", 80), ("255.255.255.255", 80), ("240.0.0.1", 80)):
    s = socket.socket(); s.settimeout(3); print(a, err(s.connect, a))
""", carried=None)


def test_datagram_and_other_sockets_are_untouched(same):
    same("""
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.connect((FAR, 9)); print(u.getpeername(), u.send(b"x"))
a, b = socket.socketpair(); a.send(b"y"); print(b.recv(1)); r, w = os.pipe(); os.write(w, b"z"); print(os.read(r, 1))
f = os.open("/etc/passwd", os.O_RDONLY); print(libc.connect(f, b"\\2\\0" + b"\\1" * 14, 16), name(ctypes.get_errno()), libc.listen(f, 1), name(ctypes.get_errno()))
""", carried=False)


def test_fast_open(same):
    same("""
s = socket.socket(); print(s.sendto(b"fast", socket.MSG_FASTOPEN, (FAR, ECHO)), s.recv(4), s.getpeername()[0])
t = socket.socket(); t.setsockopt(6, 30, 1); print(err(t.connect, (FAR, ECHO)), t.send(b"open"), t.recv(4))
u = socket.socket(); u.setblocking(False); print(err(u.sendto, b"x", socket.MSG_FASTOPEN, (FAR, ECHO)) in ("EINPROGRESS", 1)); select.select([], [u], [], 5); print(u.getsockopt(1, 4), u.getpeername()[0])
v = socket.socket(); print(err(v.sendto, b"x", socket.MSG_FASTOPEN, (FAR, NOBODY)))
""")


def test_fast_open_in_other_forms(same):
    """sendmsg() with it, on IPv6 and mapped addresses; on a socket that is connected, or connecting."""
    same("""
s = socket.socket(); print(s.sendmsg([b"fa", b"st"], [], socket.MSG_FASTOPEN, (FAR, ECHO)), s.recv(4, socket.MSG_WAITALL), err(s.sendto, b"x", socket.MSG_FASTOPEN, (FAR, ECHO)))
t = socket.socket(socket.AF_INET6); print(t.sendto(b"fast", socket.MSG_FASTOPEN, (FAR6, ECHO)), t.recv(4, socket.MSG_WAITALL), t.getpeername()[0])
u = socket.socket(socket.AF_INET6); print(u.sendto(b"fast", socket.MSG_FASTOPEN, ("::ffff:" + FAR, ECHO)), u.recv(4, socket.MSG_WAITALL), u.getpeername()[0])
v = socket.socket(); v.setblocking(False); v.connect_ex(("10.10.1.77", 80)); print(err(v.sendto, b"x", socket.MSG_FASTOPEN, ("10.10.1.77", 80))); print(err(socket.socket().send, b"x", socket.MSG_FASTOPEN))
w = socket.socket(); w.setsockopt(6, 30, 1); w.setblocking(False); print(err(w.connect, (FAR, ECHO)) in (None, "EINPROGRESS")); select.select([], [w], [], 5); print(w.send(b"x"), w.getsockopt(1, 4), bool(select.select([w], [], [], 5)[0]), w.recv(1))
""", carried=None)


def test_a_range_of_local_ports(same):
    """IP_LOCAL_PORT_RANGE: the port is the program's wish, as a bound one is. (The helper may hold some of them, never so many.)"""
    same("""
s = socket.socket(); r = err(s.setsockopt, 0, 51, struct.pack("I", 40000 | 40199 << 16)); s.connect((FAR, ECHO)); s.sendall(b"p"); print(s.recv(1), r is not None or 40000 <= s.getsockname()[1] <= 40199)
""", "b'p' True", carried=None)


def test_a_mapped_socket_becomes_an_ipv4_one(same):
    """IPV6_ADDRFORM."""
    same("""
s = socket.socket(socket.AF_INET6); s.connect(("::ffff:" + FAR, ECHO)); s.sendall(b"m"); print(s.recv(1), err(s.setsockopt, 41, 1, socket.AF_INET), s.getsockopt(1, 39)); t = socket.socket(fileno=os.dup(s.fileno())); t.sendall(b"n"); print(t.family == socket.AF_INET, t.recv(1), t.getpeername(), t.getsockname()[0])
""")


def test_names_after_the_end(same):
    same("""
s = dial(RESET); me = s.getsockname(); s.send(b"x"); time.sleep(0.4); s.recv(9); print(err(s.recv, 1), err(s.getpeername), s.getsockname() == me, err(s.shutdown, 2)); t = dial(ECHO); me = t.getsockname(); t.shutdown(1); print(t.recv(1), t.getsockname() == me); over(t); time.sleep(0.2); print(err(t.getpeername), t.getsockname() == me)
""")
