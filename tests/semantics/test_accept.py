"""Listening: the far end is asked to connect to the program (call)."""
import pytest
from conftest import HOSTS


def test_accepted_socket_knows_its_addresses(same):
    same("""
l = listen(); call(l); s, a = l.accept(); print(a[0], s.getpeername() == a, s.getsockname()[0], s.getsockname()[1] == l.getsockname()[1]); s.sendall(b"hi"); print(s.recv(9))
d = s.dup(); print(d.getpeername() == a); b = s.getsockopt(1, 28, 16); print(socket.inet_ntoa(b[4:8]))
l6 = listen(socket.AF_INET6); call(l6, to=NEAR6); s, a = l6.accept(); print(a[0], s.getpeername() == a, s.getsockname()[0]); call(l6); s, a = l6.accept(); print(a[0], s.getsockname()[0])
""")


def test_options_are_inherited(same):
    same("""
l = socket.socket(); l.setsockopt(6, 1, 1); l.setsockopt(1, 9, 1); l.setsockopt(6, 4, 77); l.setsockopt(1, 8, 50000); l.setsockopt(0, 1, 0x28); l.setsockopt(0, 2, 44); l.setsockopt(6, 18, 9000); l.setsockopt(1, 13, struct.pack("ii", 1, 7))
l.bind(("0.0.0.0", 0)); l.listen(); call(l); s, a = l.accept()
print(s.getsockopt(6, 1), s.getsockopt(1, 9), s.getsockopt(6, 4), s.getsockopt(1, 8), s.getsockopt(0, 1), s.getsockopt(0, 2), s.getsockopt(6, 18), struct.unpack("ii", s.getsockopt(1, 13, 8)), s.getblocking())
l.setblocking(False); call(l); select.select([l], [], [], 5); s, a = l.accept(); print(os.get_blocking(s.fileno()) or s.getblocking())
""")


@pytest.mark.parametrize("engine", [None, "inside", "helper"])
def test_inherited_tos_and_ttl_reach_the_wire(net, engine):
    from test_options import seen
    code = """
l = socket.socket(); l.setsockopt(0, 1, 0x48); l.setsockopt(0, 2, 44); l.bind(("0.0.0.0", 0)); l.listen(); call(l); s, a = l.accept(); s.sendall(b"x" * 500); s.recv(500)
l.setsockopt(0, 2, 45); call(l); s, a = l.accept(); s.sendall(b"x" * 500); s.recv(500)
"""
    out = seen(net, code, engine, "src 10.10.1.2 and tcp")
    assert all(f"tos 0x48, ttl {n}," in out for n in (44, 45)), out


def test_accept4_flags(same):
    same("""
l = listen()
for f in (0, socket.SOCK_NONBLOCK, socket.SOCK_CLOEXEC): call(l); n = libc.accept4(l.fileno(), None, None, f); print(n > 0, os.get_blocking(n), os.get_inheritable(n)); os.close(n)
print(libc.accept4(l.fileno(), None, None, 1), name(ctypes.get_errno()))
""")


def test_accept_errors(same):
    same("""
s = socket.socket(); print(err(s.accept)); l = listen(); l.setblocking(False); print(err(l.accept)); u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); print(err(u.accept)); print(err(dial(ECHO).accept))
""", carried=None)


def test_accept_timeout_and_interruption(same):
    same("""
l = listen(); l.setsockopt(1, 20, struct.pack("ll", 0, 200000)); print(libc.accept(l.fileno(), None, None), name(ctypes.get_errno()))
l.setsockopt(1, 20, struct.pack("ll", 0, 0)); signal.signal(signal.SIGALRM, lambda *a: None); signal.siginterrupt(signal.SIGALRM, True); signal.setitimer(signal.ITIMER_REAL, 0.2); print(libc.accept(l.fileno(), None, None), name(ctypes.get_errno()))
""", "-1 EAGAIN\n-1 EINTR")


def test_listener_in_epoll_before_listen(same):
    same("""
l = socket.socket(); l.bind(("0.0.0.0", 0)); e = select.epoll(); e.register(l, select.EPOLLIN); print([events(m) for f, m in e.poll(0.1)]); l.listen(4); print(e.poll(0.1)); call(l); print([events(m) for f, m in e.poll(5)]); l.accept(); print(e.poll(0.1))
""", "['HUP']\n[]\n['IN']\n[]")


def test_many_wait_in_the_backlog(same):
    same("""
l = listen(backlog=64); call(l, n=40); seen = [l.accept() for i in range(40)]; print(len({a for s, a in seen}))
for s, a in seen: s.sendall(b"%d" % a[1])
print(all(s.recv(9) == b"%d" % a[1] for s, a in seen))
""", "40\nTrue")


def test_data_before_accept(same):
    same("l = listen(); call(l, 'bye'); time.sleep(0.3); s, a = l.accept(); print(s.recv(9), s.recv(9))", "b'bye' b''")


def test_reset_before_accept(same):
    """The kernel hands out such a connection, and its first read fails."""
    same("l = listen(); call(l, 'rstnow'); select.select([l], [], [], 10); time.sleep(0.3); l.setblocking(False); r = err(l.accept); print(r if isinstance(r, str) else (r[0].setblocking(True), err(r[0].recv, 1))[1])", like=["mptcpize", "run"])


def test_defer_accept(same):
    """TCP_DEFER_ACCEPT: accepted only when data is there."""
    same("""
l = socket.socket(); l.setsockopt(6, 9, 3); l.bind(("0.0.0.0", 0)); l.listen(); call(l, "bye"); s, a = l.accept(); print(s.recv(9, socket.MSG_DONTWAIT), l.getsockopt(6, 9) >= 3)
call(l, "stall"); print(len(select.select([l], [], [], 0.5)[0]))
""", "b'bye' True\n0")


def test_shutdown_and_close_of_a_listener(same):
    same("""
l = listen(); p = l.getsockname()[1]; got = []; t = threading.Thread(target=lambda: got.append(err(l.accept))); t.start(); time.sleep(0.2); l.shutdown(2); t.join(5); print(got)
l.close(); m = listen(port=p); call(m); s, a = m.accept(); print(a[0])
""", "['EINVAL']\n10.10.1.2".replace("10.10.1.2", "10.10.1.1"))


def test_listen_again_changes_the_backlog(same):
    same("l = listen(backlog=1); print(err(l.listen, 50)); call(l, n=10); print(len([l.accept() for i in range(10)]))", "None\n10")


def test_listening_without_bind(same):
    same("l = socket.socket(); l.listen(5); print(l.getsockname()[0], l.getsockname()[1] > 0); call(l); s, a = l.accept(); s.sendall(b'z'); print(a[0], s.recv(1))", "0.0.0.0 True\n10.10.1.1 b'z'")


def test_listening_on_one_address(same):
    same("l = listen(address=NEAR); call(l); s, a = l.accept(); s.sendall(b'z'); print(a[0], s.getsockname()[0], s.recv(1)); l = listen(socket.AF_INET6, NEAR6); call(l, to=NEAR6); s, a = l.accept(); s.sendall(b'z'); print(a[0], s.recv(1))")


def test_local_clients_reach_the_listener(same):
    same("""
l = listen(); p = l.getsockname()[1]
for host in ("127.0.0.1", "127.1.2.3", NEAR): c = socket.create_connection((host, p)); s, a = l.accept(); print(host, a == c.getsockname(), s.getsockname() == c.getpeername(), s.getsockopt(6, 2) > 0); s.sendall(b"l"); print(c.recv(1))
""", carried=None)


def test_reuseport_group(same):
    """Each member gets its share; one that ends leaves the others working."""
    same("""
def one(port=0):
    l = socket.socket(); l.setsockopt(1, 15, 1); l.bind(("0.0.0.0", port)); l.listen(64); return l
a = one(); b = one(a.getsockname()[1]); call(a, "bye", 40); n = [0, 0]
while sum(n) < 40:
    for l in select.select([a, b], [], [], 5)[0]: s, _ = l.accept(); n[l is b] += 1; s.close()
print(sum(n), min(n) > 0); b.close(); time.sleep(0.1); call(a, "bye", 10); print(sum(a.accept()[0].recv(9) == b"bye" for i in range(10)))
""", "40 True\n10")


def test_a_group_whose_program_steers(same):
    """SO_ATTACH_REUSEPORT_CBPF: the program's own choice among its listeners; taken away, each gets its share again."""
    same("""
def one(port=0):
    l = socket.socket(); l.setsockopt(1, 15, 1); l.bind(("0.0.0.0", port)); l.listen(64); return l
a = one(); b, c = one(a.getsockname()[1]), one(a.getsockname()[1]); f = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 1)); print(err(a.setsockopt, 1, 51, struct.pack("HxxxxxxP", 1, ctypes.addressof(f))))
def share(n):
    call(a, "bye", n); got = [0, 0, 0]
    while sum(got) < n and (ready := select.select([a, b, c], [], [], 5)[0]):
        for l in ready: s, _ = l.accept(); got[(a, b, c).index(l)] += 1; s.close()
    return got
print(share(20)); print(err(a.setsockopt, 1, 68, 0)); g = share(60); print(sum(g), min(g) > 0)
""", "None\n[0, 20, 0]\nNone\n60 True")


def test_ipv4_and_v6only_on_one_port(same):
    # One that nobody had: a port that is free for IPv4 may be in TIME_WAIT for IPv6.
    same("""
p = 7890; l = listen(port=p); m = socket.socket(socket.AF_INET6); print(err(m.bind, ("::", p))); m = socket.socket(socket.AF_INET6); m.setsockopt(1, 2, 1); m.setsockopt(41, socket.IPV6_V6ONLY, 1); m.bind(("::", p)); m.listen()
call(l); s, a = l.accept(); s.sendall(b"4"); print(a[0], s.recv(1)); call(m, to=NEAR6); s, a = m.accept(); s.sendall(b"6"); print(a[0], s.recv(1), s.getsockname()[0]); call(m, to=NEAR); l.settimeout(5); print(l.accept()[1][0])
""")


def test_fast_open_of_a_listener(same):
    same("""
l = socket.socket(); print(err(l.setsockopt, 6, 23, 5)); l.bind(("0.0.0.0", 0)); l.listen(); print(err(l.setsockopt, 6, 23, 7), l.getsockopt(6, 23)); call(l); s, a = l.accept(); s.sendall(b"f"); print(s.recv(1), a[0])
""")


def test_saved_syn(same):
    """TCP_SAVE_SYN: the client's first packet; of a connection that the engine brings there is none to show."""
    code = """
l = socket.socket(); l.setsockopt(6, 27, 1); l.bind(("0.0.0.0", 0)); l.listen(); call(l); s, a = l.accept(); b = s.getsockopt(6, 28, 200); print(len(b) and (socket.inet_ntoa(b[12:16]), struct.unpack_from("!H", b, 20)[0]) == a); s.sendall(b"z"); print(s.recv(1))
"""
    assert same.run(code)[0] == "True\nb'z'\n"
    for engine in HOSTS:
        assert same.run(code, engine)[0] == "0\nb'z'\n"


def test_a_port_in_use_is_refused(same):
    same("l = listen(); p = l.getsockname()[1]; m = socket.socket(); print(err(m.bind, ('0.0.0.0', p))); n = socket.socket(); n.setsockopt(1, 2, 1); print(err(n.bind, ('0.0.0.0', p)))", "EADDRINUSE\nEADDRINUSE")


def test_a_foreign_filter_is_respected(same):
    """A program that filters its listener itself is left to the kernel."""
    same("""
l = socket.socket(); f = struct.pack("HBBI", 6, 0, 0, 0xffffffff); b = ctypes.create_string_buffer(f); l.setsockopt(1, 26, struct.pack("HxxxxxxP", 1, ctypes.addressof(b))); l.bind(("0.0.0.0", 0)); l.listen(); call(l); s, a = l.accept(); s.sendall(b"z"); print(s.recv(1), a[0])
""", carried=None)


def test_exclusive_wakeups(same):
    same("""
l = listen(); kids = []; l.setblocking(False)
for k in range(3):
    pid = os.fork()
    if not pid:
        e = select.epoll(); e.register(l, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        while e.poll(2):
            r = err(l.accept)
            if not isinstance(r, str): r[0].sendall(b"k"); r[0].recv(1); r[0].close()
        os._exit(0)
    kids.append(pid)
time.sleep(0.3); call(l, "echo", 12); time.sleep(1); print([os.waitpid(k, 0)[1] for k in kids], err(l.accept))
""", "[0, 0, 0] EAGAIN")


def test_a_closed_listener_refuses_at_once(same):
    """Who connects after close() has returned is refused: also the far end."""
    same("""
for i in range(5):
    l = listen(); p = l.getsockname()[1]; call(l); s, a = l.accept(); s.sendall(b"x"); s.recv(1); s.close(); time.sleep(0.3); l.close()
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(5); u.sendto(json.dumps([NEAR, p]).encode(), (FAR, CALLS)); print(u.recv(100).decode())
""", "Connection refused\n" * 5)


def test_a_listener_replaced_or_closed_in_a_range_refuses_at_once(same):
    same("""
import ctypes
libc = ctypes.CDLL(None)
def ask(p):
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(5); u.sendto(json.dumps([NEAR, p]).encode(), (FAR, CALLS)); return u.recv(100).decode()
def heard():
    l = listen(); call(l); s, a = l.accept(); s.sendall(b"x"); s.recv(1); s.close(); return l, l.getsockname()[1]
l, p = heard(); n = os.open("/dev/null", 0); os.dup2(n, l.fileno()); print(ask(p))
l, p = heard(); f = l.detach(); print(libc.close_range(f, f, 0), ask(p))
l, p = heard(); l.shutdown(socket.SHUT_RD); print(ask(p)); l.listen(); p = l.getsockname()[1]; call(l); s, a = l.accept(); print(ask(p))
l, p = heard(); pid = os.fork()
if pid == 0: time.sleep(0.5); os._exit(0)
l.close(); print(ask(p)); os.waitpid(pid, 0); time.sleep(1.5); print(ask(p)) # the child had no connection to the engine of its own: a second
""", "Connection refused\n0 Connection refused\nConnection refused\nSuccess\nSuccess\nConnection refused")


def test_bad_pointers(same):
    """EFAULT, as the kernel says it; the connection that accept() took is gone, and the listener goes on."""
    same("""
l = listen(); n = ctypes.c_uint32(128); a = ctypes.create_string_buffer(128); bad = ctypes.c_void_p(8)
def e(r): return errno.errorcode[ctypes.get_errno()] if r < 0 else "ok"
call(l, "echo", 2); wait(lambda: select.select([l], [], [], 0)[0])
print(e(libc.accept(l.fileno(), bad, ctypes.byref(n))), e(libc.accept(l.fileno(), a, bad)))
call(l); s, who = l.accept(); f = s.fileno(); s.sendall(b"x"); print(s.recv(1))
for f in l.fileno(), s.fileno():
    print([e(c(f, p, q)) for c in (libc.getpeername, libc.getsockname) for p, q in ((bad, ctypes.byref(n)), (a, bad), (a, None), (None, ctypes.byref(n)))])
print(e(libc.getsockopt(f, 6, 11, a, bad)), e(libc.getsockopt(f, 1, 4, bad, ctypes.byref(n))), e(libc.setsockopt(f, 6, 1, bad, 4)), e(libc.setsockopt(f, 6, 13, bad, 4)), e(libc.connect(f, bad, 16)))
s.sendall(b"y"); print(s.recv(1))
""")


def test_reuseport_is_what_the_program_set(same):
    same("l = listen(); call(l); s, a = l.accept(); print(l.getsockopt(1, 15), s.getsockopt(1, 15)); m = socket.socket(); m.setsockopt(1, 15, 1); m.bind(('0.0.0.0', 0)); m.listen(); call(m); s, a = m.accept(); print(m.getsockopt(1, 15), s.getsockopt(1, 15))", "0 0\n1 1")
