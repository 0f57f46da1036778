"""Bytes: the calls that move them, their flags, and how each direction ends."""
import pytest
from conftest import HOSTS


# ---- ends


def test_half_close_by_us(same):
    same("""
s = dial(COUNT); s.sendall(b"a" * 3000000); s.shutdown(socket.SHUT_WR); print(s.recv(100), s.recv(100), err(s.send, b"x"))
""", "b'3000000' b'' EPIPE")


def test_half_close_by_the_peer(same):
    same("""
s = dial_keep(port=EOF); print(s.recv(1), s.recv(1)); s.sendall(b"b" * 1000000); s.close(); print(kept() == "1000000 " + digest(b"b" * 1000000) + " end")
""", "b'' b''\nTrue")


def test_shutdown_of_reading(same):
    """SHUT_RD: reads return the end at once; what the peer sends later is still readable; writing goes on."""
    same("""
s = dial(ECHO); s.sendall(b"one"); come(s, 3); s.shutdown(socket.SHUT_RD); print(s.recv(10), s.recv(10))
s.sendall(b"two"); come(s, 3); print(s.recv(10), s.recv(10)); print(err(s.shutdown, socket.SHUT_RD), s.sendall(b"x"))
""")


def test_shutdown_of_both(same):
    same("""
s = dial(ECHO); s.sendall(b"one"); come(s, 3); s.shutdown(socket.SHUT_RDWR); print(s.recv(10), s.recv(10), err(s.send, b"x"))
""", "b'one' b'' EPIPE")


def test_shutdown_twice_and_of_unconnected(same):
    same("""
s = dial(STALL); print(err(s.shutdown, 1), err(s.shutdown, 1), err(s.shutdown, 7)); t = socket.socket(); print(err(t.shutdown, 0), err(t.shutdown, 1), err(t.shutdown, 2))
""")


def test_shutdown_wakes_a_reader(same):
    same("""
s = dial(ECHO); got = []; t = threading.Thread(target=lambda: got.append(err(s.recv, 1))); t.start(); time.sleep(0.2); s.shutdown(socket.SHUT_RDWR); t.join(5); print(got)
""", "[b'']")


def test_reset_by_the_peer(same):
    same("""
s = dial(RESET); s.sendall(b"x"); over(s); print([err(s.recv, 100) for i in range(3)], err(s.send, b"y"), s.getsockopt(1, 4))
s = dial(RESET); s.sendall(b"x"); over(s); print(name(s.getsockopt(1, 4)), s.getsockopt(1, 4), err(s.recv, 100), err(s.recv, 100), err(s.send, b"y"))
""")


def test_reset_while_reading_only(same):
    """A read that waits sees ECONNRESET, never an end of file."""
    same("""
s = dial(RESET); s.sendall(b"x"); out = [err(s.recv, 100) for i in range(3)]; print(out)
""", "[b'partial', 'ECONNRESET', b'']")


def test_write_after_the_peer_closed(same):
    """MPTCP knows no difference between the peer's half-close and its close: writes go on as with the kernel's MPTCP."""
    same("""
s = dial(WAITBYE); s.sendall(b"x"); print(s.recv(1)); s.sendall(b"y"); time.sleep(0.3); print(err(s.send, b"z"), err(s.send, b"z"))
""", like=["mptcpize", "run"])


def test_sigpipe(same):
    same("""
n = []; signal.signal(signal.SIGPIPE, lambda *a: n.append(1)); s = dial(ECHO); s.shutdown(1); print(err(s.send, b"x"), len(n), err(s.send, b"x", socket.MSG_NOSIGNAL), len(n), err(os.write, s.fileno(), b"x"), len(n))
""", "EPIPE 1 EPIPE 1 EPIPE 2")


@pytest.mark.parametrize("linger", ["1, 0", "0, 0", "1, 5"])
def test_linger(same, linger):
    """{1, 0}: close() resets. Otherwise all data arrives, with {1, 5} before close() returns."""
    same(f"""
s = dial_keep(); s.setsockopt(1, socket.SO_LINGER, struct.pack("ii", {linger})); s.sendall(b"l" * 100000); time.sleep(0.3); a = time.monotonic(); s.close()
k = kept(); print(k.split(None, 2)[2], time.monotonic() - a < 3)
""", "Connection reset by peer True" if linger == "1, 0" else "end True")


def test_lingering_is_for_the_last_who_closes(same):
    """A server that forks for each connection closes its own descriptor, and goes on accepting."""
    same("""
for x in FAR, FAR6:
    s = socket.create_connection((x, STALL)); s.setsockopt(1, socket.SO_LINGER, struct.pack("ii", 1, 6)); s.setblocking(False)
    while err(s.send, b"x" * 100000) != "EAGAIN": pass
    if not (pid := os.fork()): time.sleep(8); os._exit(0)
    a = time.monotonic(); s.close(); print(time.monotonic() - a < 3); os.kill(pid, 9); os.wait()
""", "True\nTrue")


def test_close_with_unread_data_resets(same):
    same("""
s = dial_keep(b"abc"); t = dial(ECHO); s.close(); t.sendall(b"unread"); come(t, 6); t.close(); print(kept())
""", "3 ba7816bf8f01cfea end")


def test_a_reset_follows_the_data_before_it(same):
    """close() with something unread resets: what was written before arrives all the same."""
    same("""
l = listen(); call(l, "talkkeep"); s, a = l.accept(); come(s, 6); s.sendall(WORD + b"\\n" + b"d" * 10000); s.close()
print(kept() == f"10000 {digest(b'd' * 10000)} Connection reset by peer")
""", "True")


@pytest.fixture
def holes(net):
    """hole(port): from then on nothing from the client to this port arrives."""
    net.server.nft("table inet hole {\n set ports {\n type inet_service;\n }\n chain i {\n type filter hook input priority 0;\n tcp dport @ports drop;\n }\n}\n")
    yield
    net.server.run(["nft", "delete", "table", "inet", "hole"])


@pytest.mark.parametrize("what,limit", [("s.setsockopt(6, 18, 1500); s.send(b'x')", 8), ("s.setsockopt(1, 9, 1); s.setsockopt(6, 4, 1); s.setsockopt(6, 5, 1); s.setsockopt(6, 6, 2)", 9)], ids=["TCP_USER_TIMEOUT", "SO_KEEPALIVE"])
def test_the_peer_vanishes(same, net, holes, what, limit):
    """In mid-connection: unacknowledged data after its time limit, and a silent peer after its probes."""
    def code(engine):
        net.server.run(["nft", "flush", "set", "inet", "hole", "ports"])
        return f"""
s = dial(ECHO); s.send(b"a"); print(s.recv(1)); time.sleep(0.4); subprocess.run({['ip', 'netns', 'exec', net.server.ns, 'nft', 'add', 'element', 'inet', 'hole', 'ports', '{ 7101 }']}, check=True)
{what}; a = time.monotonic(); p = select.poll(); p.register(s, select.POLLIN); print([events(m) for f, m in p.poll(20000)], 0.9 < time.monotonic() - a < {limit}, err(s.recv, 1), err(s.recv, 1), err(s.send, b"y"), err(s.getpeername))
"""
    bare, _ = same.run(code(None))
    assert bare == "b'a'\n['IN ERR HUP'] True ETIMEDOUT b'' EPIPE ENOTCONN\n", bare
    for engine in HOSTS:
        out, told = same.run(code(engine), engine)
        assert out == bare and not any("kernel TCP" in line for line in told), (engine, out, told)


def test_lingering_for_a_peer_that_does_not_answer(same, net, holes):
    """SO_LINGER {1, 1}: close() waits for the acknowledgement, as long as told; a non-blocking socket's too."""
    def code(engine):
        net.server.run(["nft", "flush", "set", "inet", "hole", "ports"])
        return f"""
s, t, u = dial(ECHO), dial(ECHO), dial(ECHO)
for x in (s, t, u): x.send(b"a"); x.recv(1)
time.sleep(0.4); u.setsockopt(1, socket.SO_LINGER, struct.pack("ii", 1, 5)); u.send(b"x" * 1000); a = time.monotonic(); u.close(); print(time.monotonic() - a < 2)
subprocess.run({['ip', 'netns', 'exec', net.server.ns, 'nft', 'add', 'element', 'inet', 'hole', 'ports', '{ 7101 }']}, check=True); t.setblocking(False)
for x in (s, t): x.setsockopt(1, socket.SO_LINGER, struct.pack("ii", 1, 1)); x.send(b"x" * 1000); a = time.monotonic(); x.close(); print(round(time.monotonic() - a, 1))
"""
    for engine in (None, *HOSTS):
        out, told = same.run(code(engine), engine)
        first, blocking, other = out.split()
        assert first == "True" and 0.9 <= float(blocking) < 2 and 0.9 <= float(other) < 2, (engine, out, told)


@pytest.mark.parametrize("how", ["os._exit(0)", "sys.exit(0)", "os.execv('/bin/true', ['true'])"])
def test_exit_with_10_mb_unsent(same, how):
    data = "data = b''.join(b'%8d' % i for i in range(1250000))\n"
    same(data + f"s = dial_keep(data); {how}", "10000000 True end", after=data + "n, h, end = kept(20).split(None, 2); print(n, h == digest(data), end)")


def test_killed_with_unsent_data(same):
    """SIGKILL: the kernel's TCP would still deliver what it had taken. Here the engine inside dies too: a reset. With the
    helper everything arrives."""
    code = """
data = b"k" * 1000000; s = dial_keep(data); os.kill(os.getpid(), 9)
"""
    same(code, "True", after="print(kept() == '1000000 ' + digest(b'k' * 1000000) + ' end')", status=-9, hosts=["helper"])


# ---- flags


def test_peek(same):
    same("""
s = dial(ECHO); s.sendall(b"hello"); print(s.recv(2, socket.MSG_PEEK), wait(lambda: s.recv(9, socket.MSG_PEEK) == b"hello"), s.recv(9), err(s.recv, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
s.sendall(b"abcdef"); wait(lambda: len(s.recv(9, socket.MSG_PEEK)) == 6); s.setsockopt(1, 42, 2); print(s.recv(2, socket.MSG_PEEK), s.recv(2, socket.MSG_PEEK), s.getsockopt(1, 42))
""")


def test_trunc(same):
    """TCP: MSG_TRUNC throws the bytes away and returns their number."""
    same("""
s = dial(ECHO); s.sendall(b"hello world"); come(s, 11); print(libc.recv(s.fileno(), None, 6, socket.MSG_TRUNC), s.recv(9))
""", "6 b'world'")


def test_waitall(same):
    same("""
s = dial(SLOW); s.send(b"1"); print(s.recv(10, socket.MSG_WAITALL)); t = dial(STEP); t.send(b"1"); print(t.recv(10))
""", "b'0123456789'\nb'01234'")


def test_waitall_is_interrupted_by_the_end(same):
    same("s = dial(BYE); print(s.recv(100, socket.MSG_WAITALL), s.recv(1))", "b'bye' b''")


def test_dontwait(same):
    same("""
s = dial(STALL); print(err(s.recv, 1, socket.MSG_DONTWAIT)); n = 0
def fill():
    global n
    while (r := err(s.send, b"x" * 65536, socket.MSG_DONTWAIT)) != "EAGAIN": n += r
fill(); time.sleep(0.3); fill(); time.sleep(0.3); fill(); print(n > 100000, err(s.send, b"x", socket.MSG_DONTWAIT))
""", "EAGAIN\nTrue EAGAIN")


def test_receive_timeout(same):
    same("""
s = dial(ECHO); s.setsockopt(1, socket.SO_RCVTIMEO, struct.pack("ll", 0, 200000)); a = time.monotonic(); print(err(s.recv, 1), 0.15 < time.monotonic() - a < 1); s.sendall(b"x"); print(s.recv(1))
""", "EAGAIN True\nb'x'")


def test_send_timeout(same):
    same("""
s = dial(STALL); s.setsockopt(1, socket.SO_SNDTIMEO, struct.pack("ll", 0, 300000)); s.setblocking(True)
out = [err(s.send, b"x" * 30000000) for i in range(6)]; print(isinstance(out[0], int), out[-1])
""", "True EAGAIN")


def test_urgent_byte_is_not_lost(same):
    """Inline (SO_OOBINLINE): a byte like others. MPTCP has no urgent pointer (RFC 8684): the kernel's MPTCP sockets send
    such data inline, and so does the engine: its receiver must not miss a byte of the stream."""
    same("""
s = dial(COUNT); s.send(b"abc"); s.send(b"!", socket.MSG_OOB); s.send(b"def"); s.shutdown(1); print(s.recv(9) in (b"6", b"7"))
""", "True")
    out, _ = same.run("s = dial(ECHO); s.send(b'abc'); s.send(b'!', socket.MSG_OOB); s.send(b'def'); s.shutdown(1); print(s.recv(7, socket.MSG_WAITALL))", "inside")
    assert out == "b'abc!def'\n"
    out, _ = same.run("s = dial(ECHO); s.send(b'ABOR\\r\\n', socket.MSG_OOB); print(s.recv(6, socket.MSG_WAITALL)); s.send(b'abc', socket.MSG_OOB); print(s.recv(3, socket.MSG_WAITALL))", "helper")
    assert out == "b'ABOR\\r\\n'\nb'abc'\n"


def test_reading_urgent_data_that_is_not_there(same):
    same("""
s = dial(ECHO); print(err(s.recv, 1, socket.MSG_OOB)); s.setsockopt(1, socket.SO_OOBINLINE, 1); print(err(s.recv, 1, socket.MSG_OOB), ioctl_int(s, 0x8905))
""")


def test_flags_together(same):
    """MSG_PEEK with MSG_WAITALL and MSG_TRUNC; MSG_WAITALL with MSG_DONTWAIT and a time limit; a low-water mark. The mark is
    waited for by select(): a recv() that begins between the two pieces takes the first, and the kernel wakes it no more for
    the second, which is below the mark."""
    same("""
s = dial(SLOW); s.send(b"1"); print(s.recv(10, socket.MSG_PEEK | socket.MSG_WAITALL), s.recv(10)); s.send(b"1"); print(s.recv(5, socket.MSG_WAITALL), s.recv(10, socket.MSG_WAITALL | socket.MSG_DONTWAIT) if wait(lambda: ioctl_int(s, termios.FIONREAD) == 5) else 0)
s.send(b"1"); wait(lambda: ioctl_int(s, termios.FIONREAD) == 10); b = ctypes.create_string_buffer(b"....", 4); print(libc.recv(s.fileno(), b, 4, socket.MSG_PEEK | socket.MSG_TRUNC), b.raw, s.recv(10))
s.setsockopt(1, 20, struct.pack("ll", 0, 300000)); s.send(b"1"); wait(lambda: ioctl_int(s, termios.FIONREAD) == 10); print(s.recv(20, socket.MSG_WAITALL), err(s.recv, 20, socket.MSG_WAITALL))
s.setsockopt(1, 20, struct.pack("ll", 0, 0)); s.setsockopt(1, socket.SO_RCVLOWAT, 8); s.send(b"1"); select.select([s], [], []); print(s.recv(10), s.getsockopt(1, 18))
""")


def test_peek_offset(same):
    """SO_PEEK_OFF moves with what is peeked at and back with what is read; -1 ends it."""
    same("""
s = dial(ECHO); s.setsockopt(1, 42, 3); s.sendall(b"abcdefgh"); wait(lambda: ioctl_int(s, termios.FIONREAD) == 8); P = socket.MSG_PEEK
print(s.recv(2, P), s.getsockopt(1, 42), s.recv(1), s.getsockopt(1, 42), s.recv(2, P), s.recv(9, P), err(s.recv, 9, P | socket.MSG_DONTWAIT), s.setsockopt(1, 42, -1), s.recv(3, P), s.recv(9))
""")


def test_waitall_is_interrupted_by_a_signal(same):
    """What had come is returned, and nothing of it is lost."""
    same("""
s = dial(SLOW); b = ctypes.create_string_buffer(30); signal.signal(signal.SIGALRM, lambda *a: None); signal.siginterrupt(signal.SIGALRM, True)
signal.setitimer(signal.ITIMER_REAL, 0.5); s.send(b"1"); print(libc.recv(s.fileno(), b, 30, socket.MSG_WAITALL), b.value); signal.setitimer(signal.ITIMER_REAL, 0.2); print(libc.recv(s.fileno(), b, 30, socket.MSG_WAITALL), name(ctypes.get_errno()))
""", "10 b'0123456789'\n-1 EINTR")


def test_a_send_is_interrupted_by_a_signal(same):
    """With something sent, the number of bytes; with nothing, EINTR; with SA_RESTART it goes on."""
    same("""
s = dial(STALL); big = b"x" * 60000000; signal.signal(signal.SIGALRM, lambda *a: None); signal.siginterrupt(signal.SIGALRM, True)
signal.setitimer(signal.ITIMER_REAL, 0.7); n = libc.send(s.fileno(), big, len(big), 0); print(0 < n < len(big))
for i in range(3): signal.setitimer(signal.ITIMER_REAL, 0.3); n = libc.send(s.fileno(), big, len(big), 0)
print(n, name(ctypes.get_errno())); signal.siginterrupt(signal.SIGALRM, False); s.setsockopt(1, socket.SO_SNDTIMEO, struct.pack("ll", 1, 0)); signal.setitimer(signal.ITIMER_REAL, 0.2); a = time.monotonic(); print(libc.send(s.fileno(), big, len(big), 0), name(ctypes.get_errno()), time.monotonic() - a < 0.7)
""")


def test_error_queue_is_empty(same):
    same("s = dial(ECHO); print(err(s.recvmsg, 100, 100, socket.MSG_ERRQUEUE))", "EAGAIN")


def test_more_and_cork(same):
    same("""
s = dial(ECHO); s.send(b"a", socket.MSG_MORE); s.send(b"b"); print(s.recv(2, socket.MSG_WAITALL)); s.setsockopt(6, 3, 1); s.send(b"c"); s.send(b"d"); print(s.getsockopt(6, 3)); s.setsockopt(6, 3, 0); print(s.recv(2, socket.MSG_WAITALL))
s.setsockopt(6, 3, 1); a = time.monotonic(); s.send(b"e"); print(s.recv(1), time.monotonic() - a < 1)
""")


def test_zero_bytes(same):
    same("s = dial(ECHO); print(s.send(b''), s.recv(0), os.write(s.fileno(), b''), os.read(s.fileno(), 0)); s.send(b'x'); print(s.recv(0), s.recv(1))")


# ---- calls


def test_addresses_in_messages(same):
    """sendto() and sendmsg() ignore an address on a connected TCP socket; recvfrom() and recvmsg() give none."""
    same("""
s = dial(ECHO); print(s.sendto(b"abc", ("1.2.3.4", 5)), s.recvfrom(9)); print(s.sendmsg([b"d", b"ef"], [], 0, ("1.2.3.4", 5)), s.recvmsg(9, 100))
b, l = ctypes.create_string_buffer(b"\\xee" * 32, 32), ctypes.c_int(32); s.send(b"x"); d = ctypes.create_string_buffer(9); print(libc.recvfrom(s.fileno(), d, 9, 0, b, ctypes.byref(l)), l.value, b.raw[:4])
t = socket.socket(); print(err(t.sendto, b"x", (FAR, ECHO)), err(t.send, b"x"), err(t.recv, 1), err(t.recvfrom, 1))
""")


def test_recvmsg_lengths_and_flags(same):
    same("""
s = dial(ECHO); s.send(b"abcdef"); come(s, 6); bufs = [bytearray(2), bytearray(3)]; print(s.recvmsg_into(bufs, 100), bufs, s.recvmsg(10))
print(err(s.recvmsg, 1, 0, socket.MSG_DONTWAIT))
""")


MMSG = """
class iovec(ctypes.Structure): _fields_ = [("b", ctypes.c_char_p), ("n", ctypes.c_size_t)]
class msghdr(ctypes.Structure): _fields_ = [("name", ctypes.c_void_p), ("nl", ctypes.c_uint), ("iov", ctypes.POINTER(iovec)), ("iovlen", ctypes.c_size_t), ("c", ctypes.c_void_p), ("cl", ctypes.c_size_t), ("flags", ctypes.c_int)]
class mmsg(ctypes.Structure): _fields_ = [("h", msghdr), ("len", ctypes.c_uint)]
def mk(bufs):
    m = (mmsg * len(bufs))()
    for i, b in enumerate(bufs): m[i].h.iov = ctypes.pointer(iovec(b, len(b))); m[i].h.iovlen = 1
    return m
"""


def test_several_messages_at_once(same):
    same(MMSG + """
s = dial(ECHO); m = mk([b"ab", b"cde"]); print(libc.sendmmsg(s.fileno(), m, 2, 0), [x.len for x in m]); come(s, 5)
m = mk([b"..", b"...."]); print(libc.recvmmsg(s.fileno(), m, 2, socket.MSG_DONTWAIT, None), [x.len for x in m], [x.h.iov[0].b for x in m], [x.h.nl for x in m])
print(libc.recvmmsg(s.fileno(), m, 2, socket.MSG_DONTWAIT, None), name(ctypes.get_errno()))
""")


def test_messages_after_a_reset(same):
    """recvmmsg() and sendmmsg() tell the reset too."""
    same(MMSG + """
s = dial(RESET); s.send(b"x"); over(s); s.recv(9); m = mk([b"."]); print([(libc.recvmmsg(s.fileno(), m, 1, 0, None), name(ctypes.get_errno())) for i in range(2)][0])
""", "(-1, 'ECONNRESET')")


def test_several_messages_wait_for_one(same):
    """recvmmsg(): MSG_WAITFORONE takes what is there after the first; its time-out is looked at between messages only."""
    same(MMSG + """
s = dial(STEP); s.send(b"1"); m = mk([b"....."] * 3); print(libc.recvmmsg(s.fileno(), m, 3, 0x10000, None), m[0].len); s.send(b"1"); come(s, 5)
m = mk([b"...", b"...", b"..."]); print(libc.recvmmsg(s.fileno(), m, 3, 0x10000, None), [x.len for x in m]); t = struct.pack("ll", 0, 500000000); s.send(b"1"); threading.Timer(0.8, s.send, [b"1"]).start(); m = mk([b"..."] * 9); print(libc.recvmmsg(s.fileno(), m, 9, 0, t), [x.len for x in m][:3])
""")


def test_names_in_messages(same):
    """msg_name of a received message stays untouched, its length becomes 0; control data without room is MSG_CTRUNC."""
    same(MMSG + """
s = dial(ECHO); s.setsockopt(6, 36, 1); a = ctypes.create_string_buffer(b"\\xee" * 16, 16); m = mk([b"....", b"...."])
for x in m: x.h.name = ctypes.addressof(a); x.h.nl = 16
s.send(b"abcdefgh"); wait(lambda: ioctl_int(s, termios.FIONREAD) == 8); print(libc.recvmmsg(s.fileno(), m, 2, 0, None), [(x.len, x.h.nl, x.h.flags & 8) for x in m], a.raw == b"\\xee" * 16)
c = ctypes.create_string_buffer(4); s.send(b"xy"); wait(lambda: ioctl_int(s, termios.FIONREAD) == 2); h = mk([b"...."])[0].h; h.c = ctypes.addressof(c); h.cl = 4; print(libc.recvmsg(s.fileno(), ctypes.byref(h), 0), h.cl, h.flags & 8)
h = mk([b"z"])[0].h; h.name = ctypes.addressof(a); h.nl = 16; print(libc.sendmsg(s.fileno(), ctypes.byref(h), 0), s.recv(4))
""")


def test_readv_writev(same):
    same("s = dial(ECHO); print(os.writev(s.fileno(), [b'ab', b'', b'cd'])); come(s, 4); b = [bytearray(1), bytearray(9)]; print(os.readv(s.fileno(), b), b)")


def test_sendfile(same):
    same("""
f = os.open("/usr/bin/python3", os.O_RDONLY); n = os.fstat(f).st_size; data = open("/usr/bin/python3", "rb").read(); s = dial_keep(); off = 0
while off < n: off += os.sendfile(s.fileno(), f, off, n - off)
s.close(); print(kept() == f"{n} {digest(data)} end")
""", "True")


def test_splice_and_tee(same):
    same("""
s = dial(ECHO); r, w = os.pipe(); r2, w2 = os.pipe(); os.write(w, b"spliced"); print(os.splice(r, s.fileno(), 100)); come(s, 7)
print(os.splice(s.fileno(), w, 100), libc.tee(r, w2, 100, 0), os.read(r, 100), os.read(r2, 100)); s.setblocking(False); print(err(os.splice, s.fileno(), w, 1, None, None, 2))
""", "7\n7 7 b'spliced' b'spliced'\nEAGAIN")


def test_zerocopy(same):
    """MSG_ZEROCOPY: the data arrives and the completion is reported on the error queue."""
    same("""
s = dial_keep(); s.setsockopt(1, 60, 1); buf = b"z" * 500000; n = 0
while n < len(buf): n += s.send(buf[n:], 0x4000000)
p = select.poll(); p.register(s, 0); print(bool(p.poll(3000))); print(len(s.recvmsg(0, 200, socket.MSG_ERRQUEUE)[1])); s.close(); print(kept() == f"500000 {digest(buf)} end")
""", "True\n1\nTrue")


def test_queue_sizes(same):
    """FIONREAD and SIOCINQ: what can be read. SIOCOUTQ: what the peer has not acknowledged; it falls to 0 only then."""
    same("""
s = dial(ECHO); s.send(b"12345"); print(wait(lambda: ioctl_int(s, termios.FIONREAD) == 5), ioctl_int(s, 0x541b), wait(lambda: ioctl_int(s, 0x5411) == 0), wait(lambda: ioctl_int(s, 0x894b) == 0)); s.recv(9)
t = dial(STALL); t.setblocking(False); n = 0
while isinstance(r := err(t.send, b"x" * 65536), int): n += r
time.sleep(0.3)
while isinstance(r := err(t.send, b"x" * 65536), int): n += r
time.sleep(0.5); q = ioctl_int(t, 0x5411); print(n - q < 300000, 0 <= ioctl_int(t, 0x894b) <= q)
""", "True 5 True True\nTrue True")


def test_inq_by_ancillary_data(same):
    same("""
s = dial(ECHO); s.setsockopt(6, 36, 1); s.send(b"12345678"); come(s, 8); d, a, f, _ = s.recvmsg(3, 100); print(d, [(l, t, struct.unpack("i", v)[0]) for l, t, v in a])
""", "b'123' [(6, 36, 5)]")


def test_inq_at_the_end(same):
    """TCP_INQ tells of an end behind the data as of one byte more."""
    same("""
s = dial(BYE); s.setsockopt(6, 36, 1); over(s, select.POLLRDHUP)
for i in range(3): d, a, f, _ = s.recvmsg(2, 100); print(d, [(l, t, struct.unpack("i", v)[0]) for l, t, v in a])
""", like=["mptcpize", "run"])


def test_large_transfer_both_ways(same):
    same("""
s = dial(ECHO); data = os.urandom(1 << 20) * 8; h = hashlib.sha256(); n = 0
t = threading.Thread(target=lambda: (s.sendall(data), s.shutdown(1))); t.start()
while d := s.recv(1 << 20): h.update(d); n += len(d)
print(n, h.hexdigest() == hashlib.sha256(data).hexdigest())
""", "8388608 True")


def test_low_water_mark(same):
    same("""
s = dial(SLOW); s.setsockopt(1, socket.SO_RCVLOWAT, 8); s.send(b"1"); a = time.monotonic(); print(len(select.select([s], [], [], 5)[0]), time.monotonic() - a > 0.08, len(s.recv(10)))
""", "1 True 10")
