"""Carriers, with the real engine over a fake stack (engine/fake): what a program sees of its own kernel socket."""
import ctypes
import errno
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "engine"))
import ctl  # noqa: E402

HERE = Path(__file__).parent
CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="session")
def fake_engine(made_once):
    flags = ["-fsanitize=address,undefined"] if os.environ.get("ASAN") == "1" else []
    return made_once("mpshim-engine-fake", lambda out: subprocess.run([HERE / "engine/fake/build.sh", out, *flags], check=True, timeout=120))


@pytest.fixture
def netns():
    """This process in a network namespace of its own, with lo up and one further local address."""
    if os.geteuid():
        pytest.skip("needs root")
    with open("/proc/self/ns/net") as home:
        if libc.unshare(CLONE_NEWNET):
            pytest.skip("cannot unshare")
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            subprocess.run(["ip", "addr", "add", "10.1.1.9/32", "dev", "lo"], check=True)
            yield
        finally:
            libc.setns(home.fileno(), CLONE_NEWNET)


class Engine:
    def __init__(self, program, directory):
        self.path = str(directory / "ctl")
        self.log = open(directory / "log", "w+")
        self.p = subprocess.Popen([program, "--foreground", "-v", "--ctl", self.path, "--idle", "0"], stderr=self.log)
        deadline = time.time() + 10
        while True:
            try:
                self.ctl = ctl.Ctl(self.path)
                break
            except OSError:
                assert self.p.poll() is None and time.time() < deadline, "engine did not start"
                time.sleep(0.01)
        assert self.ctl.ask(ctl.HELLO).result == 0

    def connect(self, *a, **kw):
        return self.ctl.connect(*a, **kw)

    def fds(self):
        """The least of several looks: an answer's socket may not be closed yet."""
        counts = []
        for _ in range(5):
            counts.append(len(os.listdir(f"/proc/{self.p.pid}/fd")))
            time.sleep(0.02)
        return min(counts)

    def cpu(self):
        f = Path(f"/proc/{self.p.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(f[11]) + int(f[12])) / os.sysconf("SC_CLK_TCK")

    def settled(self, timeout=5):
        """Waits until no carrier lives."""
        end = time.time() + timeout
        while (s := self.ctl.status())["carriers"] or s["stack_connections"]:
            assert time.time() < end, s
            time.sleep(0.02)

    def holds(self, fds, timeout=5):
        """It comes back to so many descriptors: identities that programs may have again are kept for half a second."""
        end = time.time() + timeout
        while self.fds() != fds and time.time() < end:
            time.sleep(0.05)
        return self.fds() == fds

    def text(self):
        self.log.seek(0)
        return self.log.read()

    def stop(self):
        self.ctl.close()
        if self.p.poll() is None:
            self.p.send_signal(signal.SIGTERM)
        self.p.wait(10)
        assert "ERROR: AddressSanitizer" not in self.text() and "runtime error" not in self.text(), self.text()


@pytest.fixture
def engine(netns, fake_engine, tmp_path):
    e = Engine(fake_engine, tmp_path)
    yield e
    e.stop()


def read_all(s):
    out = b""
    while piece := s.recv(1 << 20):
        out += piece
    return out


# ---- connect ----

def test_blocking_connect_and_echo(engine):
    with engine.connect("10.1.1.1", 7) as s:
        s.sendall(b"hello")
        assert s.recv(100) == b"hello"
        assert s.getpeername()[0].startswith("127.")
        r = engine.ctl.query(s)
        assert (r.result, r.state) == (0, ctl.OPEN)
        assert ctl.unpack(r.remote) == ("10.1.1.1", 7)
        assert ctl.unpack(r.local)[0] == "10.1.1.129"
    engine.settled()


def test_answers_come_on_the_socket_that_was_kept(engine):
    far = ctl.pack("10.1.1.1", 7)
    a, first = engine.ctl.keep(77, ctl.CONNECT, remote=far)
    assert (first.op, first.result) == (ctl.CONNECT | ctl.KEPT, 0)
    second = engine.ctl.ask_kept(a, 77, ctl.CONNECT, remote=far)
    assert (second.op, second.result) == (ctl.CONNECT | ctl.KEPT, 0)
    assert ctl.unpack(second.identity) not in (ctl.unpack(first.identity), None)
    assert engine.ctl.ask_kept(a, 77, ctl.QUERY, identity=second.identity, local=ctl.pack("127.0.0.1", 9)).result == 0
    engine.ctl.ask(ctl.DRAIN)  # its own socket, as ever
    b, _ = engine.ctl.keep(77, ctl.CONNECT, remote=far)  # the name again: the older one ends
    assert a.recv(1) == b""
    assert engine.ctl.ask_kept(b, 77, ctl.CONNECT, remote=far).result == 0


def test_a_question_for_a_socket_that_is_not_kept_is_not_acted_upon(engine):
    a, _ = engine.ctl.keep(77, ctl.CONNECT, remote=ctl.pack("10.1.1.1", 7))
    connects = engine.ctl.status()["total_connects"]
    engine.ctl.tell(ctl.CONNECT, flags=ctl.F_KEPT, value=78, remote=ctl.pack("10.1.1.1", 7))
    assert engine.ctl.status()["total_connects"] == connects
    assert engine.ctl.ask_kept(a, 77, ctl.CONNECT, remote=ctl.pack("10.1.1.1", 7)).result == 0
    assert engine.ctl.status()["total_connects"] == connects + 1


def test_sockets_of_those_who_have_gone_make_room(engine):
    held = [engine.ctl.keep(name, ctl.QUERY)[0] for name in range(16)]
    assert engine.ctl.keep(16, ctl.QUERY)[1].op == ctl.QUERY  # no room: answered, not kept
    held.pop(3).close()
    last, rep = engine.ctl.keep(17, ctl.QUERY)
    assert rep.op == ctl.QUERY | ctl.KEPT
    assert engine.ctl.ask_kept(held[0], 0, ctl.QUERY).op == ctl.QUERY | ctl.KEPT
    before = engine.fds()
    other = ctl.Ctl(engine.path)
    assert other.ask(ctl.HELLO).result == 0
    mine, _ = other.keep(0, ctl.QUERY)  # another client's names are its own
    assert engine.ctl.ask_kept(held[0], 0, ctl.QUERY).op == ctl.QUERY | ctl.KEPT
    other.close()
    assert mine.recv(1) == b"" and engine.holds(before)


@pytest.mark.timing
def test_connect_waits_as_long_as_the_handshake(engine):
    t = time.time()
    engine.connect("10.1.20.1", 7).close()
    assert 0.19 < time.time() - t < 0.3


def test_nonblocking_connect_one_writable_edge(engine):
    s = engine.connect("10.1.50.1", 7, blocking=False)
    ep = select.epoll()
    ep.register(s, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)
    assert ep.poll(0.05) == []
    assert ep.poll(10) == [(s.fileno(), select.EPOLLOUT)]
    assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    assert ep.poll(0.1) == []
    s.close()
    engine.settled()


def test_epoll_before_connect(engine):
    s = socket.socket()
    s.setblocking(False)
    ep = select.epoll()
    ep.register(s, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP)
    ident = engine.ctl.identity("10.1.5.1", 7)
    assert s.connect_ex(ident) == errno.EINPROGRESS
    end = time.time() + 10
    while (ev := ep.poll(1)) != [(s.fileno(), select.EPOLLOUT)]:
        assert time.time() < end, ev
    s.send(b"x")
    s.close()


@pytest.mark.timing
def test_mptcp_up_before_the_program_connects(engine):
    ident = engine.ctl.identity("10.1.0.1", 7)
    time.sleep(0.1)
    with socket.create_connection(ident, timeout=2) as s:
        t = time.time()
        s.sendall(b"hi")
        assert s.recv(10) == b"hi" and time.time() - t < 0.2


@pytest.mark.parametrize("port, err", [(1, errno.ECONNREFUSED), (2, errno.EHOSTUNREACH), (3, errno.ENETUNREACH)])
@pytest.mark.parametrize("delay", [0, 5])
def test_failures_have_their_errno(engine, port, err, delay):
    with pytest.raises(OSError) as x:
        engine.connect(f"10.1.{delay}.1", port)
    assert x.value.errno == err
    s = engine.connect(f"10.1.{delay}.1", port, blocking=False)
    p = select.poll()
    p.register(s, select.POLLOUT)
    assert p.poll(10000)[0][1] & select.POLLERR
    assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == err
    s.close()
    engine.settled()


@pytest.mark.timing
def test_failures_are_told_at_once(engine):
    for port in 1, 2, 3:
        for delay in 0, 5:
            t = time.time()
            with pytest.raises(OSError):
                engine.connect(f"10.1.{delay}.1", port)
            assert time.time() - t < delay / 100 + 0.3


def test_failure_before_the_program_connects(engine):
    ident = engine.ctl.identity("10.1.0.1", 1)
    time.sleep(0.1)
    s = socket.socket()
    s.settimeout(2)
    assert s.connect_ex(ident) == errno.ECONNREFUSED


def test_time_out_is_first_left_to_the_programs_own_tcp(engine):
    s = engine.connect("10.1.1.1", 4, blocking=False)
    p = select.poll()
    p.register(s, select.POLLOUT)
    t = time.time()
    assert p.poll(8000)[0][1] & select.POLLERR
    assert 2.5 < time.time() - t < 5
    s.close()


def test_time_out_errno_by_query(engine):
    ident = engine.ctl.identity("10.1.1.1", 4)
    s = socket.socket()
    s.settimeout(8)
    assert s.connect_ex(ident) == errno.ECONNREFUSED
    r = engine.ctl.ask(ctl.QUERY, identity=ctl.pack(*ident), local=ctl.pack(*s.getsockname()))
    assert (r.state, r.err) == (ctl.FAILED, errno.ETIMEDOUT)
    s.close()


def test_close_while_pending(engine):
    fds = engine.fds()
    socks = [engine.connect("10.1.1.1", 5, blocking=False) for _ in range(20)]
    assert engine.ctl.status()["carriers"] == 20
    for s in socks:
        s.close()
    engine.settled(4)
    assert engine.fds() == fds


def test_another_users_syn_is_not_taken(engine):
    ident = engine.ctl.identity("10.1.20.1", 7)
    pid = os.fork()
    if pid == 0:
        os.setuid(65534)
        s = socket.socket()
        s.settimeout(0.6)
        r = s.connect_ex(ident)
        os._exit(0 if r == errno.EAGAIN else 1)
    time.sleep(0.1)
    with socket.create_connection(ident, timeout=2) as s:
        s.sendall(b"mine")
        assert s.recv(10) == b"mine"
    assert os.waitpid(pid, 0)[1] == 0


def test_local_route_is_the_kernels(engine):
    r = engine.ctl.ask(ctl.CONNECT, remote=ctl.pack("127.0.0.1", 80))
    assert r.result < 0 and r.why == 1


def test_v6_socket(engine):
    with engine.connect("2001:db8::1", 7, family=socket.AF_INET6) as s:
        s.sendall(b"six")
        assert s.recv(10) == b"six"
        r = engine.ctl.query(s)
        assert ctl.unpack(r.remote) == ("2001:db8::1", 7)


def test_v6only_socket(engine):
    s = socket.socket(socket.AF_INET6)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    ident = engine.ctl.identity("2001:db8::1", 7, flags=ctl.F_V6ONLY)
    assert ident[0] == "::1"
    s.settimeout(3)
    s.connect(ident)
    s.sendall(b"six")
    assert s.recv(10) == b"six"
    s.close()
    for port, err in ((1, errno.ECONNREFUSED), (2, errno.EHOSTUNREACH), (3, errno.ENETUNREACH)):
        s = socket.socket(socket.AF_INET6)
        s.settimeout(3)
        assert s.connect_ex(engine.ctl.identity("2001:db8::1", port, flags=ctl.F_V6ONLY)) == err
        s.close()
    engine.settled()


# ---- ends ----

def test_program_half_closes(engine):
    with engine.connect("10.1.1.1", 7) as s:
        s.sendall(b"x" * 100000)
        s.shutdown(socket.SHUT_WR)
        assert read_all(s) == b"x" * 100000
    engine.settled()


def test_peer_half_closes(engine):
    with engine.connect("10.1.1.1", 21) as s:
        assert read_all(s) == b"hello"
        s.sendall(b"still open")
        time.sleep(0.1)
        s.sendall(b"still open")
        assert engine.ctl.status()["carriers"] == 1
    engine.settled()


def test_peer_reset_comes_after_the_data(engine):
    with engine.connect("10.1.1.1", 22) as s:
        s.sendall(b"abc")
        assert s.recv(3) == b"abc"
        with pytest.raises(ConnectionResetError):
            s.recv(1)
    engine.settled()


def test_peer_reset_of_a_program_that_only_reads_late(engine):
    with engine.connect("10.1.1.1", 22) as s:
        s.sendall(b"x" * 200000)
        time.sleep(0.5)
        got = 0
        with pytest.raises(ConnectionResetError):
            while n := len(s.recv(65536)):
                got += n
        assert got > 0


def test_program_reset_aborts(engine):
    s = engine.connect("10.1.1.1", 19)  # 1 MB waits for it
    time.sleep(0.1)
    s.close()  # unread data: the kernel resets
    engine.settled()


def test_program_linger_reset(engine):
    s = engine.connect("10.1.1.1", 9)
    s.sendall(b"x")
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    s.close()
    engine.settled()


def test_program_closes_and_the_peer_never_does(engine):
    """Port 21's peer has ended, echo's has not: an orphan must not stay."""
    s = engine.connect("10.1.1.1", 22)
    s.close()
    engine.settled(6)


def test_engine_death_is_a_reset(engine):
    with engine.connect("10.1.1.1", 7) as s:
        s.sendall(b"x")
        assert s.recv(1) == b"x"
        engine.p.kill()
        with pytest.raises(ConnectionResetError):
            s.recv(1)


def test_big_echo_is_exact(engine):
    data = os.urandom(1 << 20) * 24
    with engine.connect("10.1.1.1", 7) as s:
        pid = os.fork()
        if pid == 0:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            os._exit(0)
        assert read_all(s) == data
        os.waitpid(pid, 0)
    engine.settled()


def test_unread_data_is_bounded(engine):
    with engine.connect("10.1.1.255", 19) as s:  # 255 MB
        time.sleep(0.5)
        taken = engine.ctl.status()["connections"][0]["bytes_read"]
        assert 64 << 10 < taken < 8 << 20, taken
        cpu = engine.cpu()
        time.sleep(0.5)
        assert engine.cpu() - cpu < 0.05  # waits, does not spin


# ---- accept ----

def listening(engine, host="0.0.0.0", family=socket.AF_INET, port=0, backlog=64):
    l = socket.socket(family)
    l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    l.bind((host, port))
    l.listen(backlog)
    l.settimeout(5)
    r = engine.ctl.ask(ctl.LISTEN, [l.fileno()], local=ctl.pack(*l.getsockname()[:2]), value=backlog)
    assert r.result == 0, r.result
    return l, l.getsockname()[1]


@pytest.mark.parametrize("host, family", [("0.0.0.0", socket.AF_INET), ("10.1.1.9", socket.AF_INET), ("::", socket.AF_INET6)])
def test_accept(engine, host, family):
    l, port = listening(engine, host, family)
    with engine.connect("10.1.1.1", port) as c:
        s, peer = l.accept()
        with s:
            assert "127." in peer[0]
            r = engine.ctl.query(s)
            assert (r.result, r.state) == (0, ctl.OPEN)
            c.sendall(b"request")
            assert s.recv(100) == b"request"
            s.sendall(b"answer")
            s.shutdown(socket.SHUT_WR)
            assert read_all(c) == b"answer"
            c.close()
            assert s.recv(1) == b""
    l.close()
    engine.settled()


def test_loopback_clients_still_reach_the_listener(engine):
    l, port = listening(engine)
    with socket.create_connection(("127.0.0.1", port), timeout=2):
        l.accept()[0].close()
    l.close()


def test_listener_gone_is_noticed(engine):
    l, port = listening(engine)
    assert engine.ctl.status()["listeners"][0]["live"]
    l.close()
    engine.ctl.tell(ctl.UNLISTEN, local=ctl.pack("0.0.0.0", port))
    assert engine.ctl.status()["listeners"] == []
    l, port = listening(engine)
    l.close()
    end = time.time() + 10         # at the next slow round
    while engine.ctl.status()["listeners"]:
        assert time.time() < end
        time.sleep(0.05)


def test_port_is_guarded_while_connections_live_and_given_up_on_request(engine):
    l, port = listening(engine)
    c = engine.connect("10.1.1.1", port)
    s = l.accept()[0]
    l.close()
    engine.ctl.tell(ctl.UNLISTEN)
    (info,) = engine.ctl.status()["listeners"]
    assert not info["live"] and info["connections"] == 1
    l2 = socket.socket()
    l2.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with pytest.raises(OSError):
        l2.bind(("0.0.0.0", port))
    assert engine.ctl.ask(ctl.RELEASE_PORT, local=ctl.pack("0.0.0.0", port)).result == 0
    l2.bind(("0.0.0.0", port))
    engine.ctl.tell(ctl.UNLISTEN)  # the listeners are looked at: not yet time for the guard
    engine.ctl.status()
    l2.listen()
    l2.close()
    time.sleep(2.2)
    with pytest.raises(OSError):   # nobody came: guarded again
        socket.create_server(("0.0.0.0", port))
    s.close()
    c.close()
    engine.settled()
    assert engine.ctl.status()["listeners"] == []


# ---- many, leaks, speed, draining ----

def test_500_at_once_and_no_leak(engine):
    fds = engine.fds()
    socks = [engine.connect("10.1.10.1", 7, blocking=False) for _ in range(500)]
    for i, s in enumerate(socks):
        s.setblocking(True)
        s.settimeout(5)
        p = select.poll()
        p.register(s, select.POLLOUT)
        assert p.poll(5000), i
        s.sendall(b"%d" % i * 100)
        s.shutdown(socket.SHUT_WR)
    for i, s in enumerate(socks):
        assert read_all(s) == b"%d" % i * 100
        s.close()
    engine.settled()
    assert engine.holds(fds)


@pytest.mark.timing
def test_connects_per_second(engine):
    t, cpu = time.time(), engine.cpu()
    for _ in range(1000):
        engine.connect("10.1.0.1", 7).close()
    t, cpu = time.time() - t, engine.cpu() - cpu
    print(f"\n{t * 1000:.0f} us a connection in all, {cpu * 1000:.0f} us of the engine's CPU")
    engine.settled()
    assert t < 5


def use(s, cc):
    try:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, cc.encode())
    except FileNotFoundError:
        pytest.skip(f"this kernel has no {cc}")


@pytest.mark.timing
@pytest.mark.parametrize("cc", ["bbr", "reno"])
@pytest.mark.parametrize("down", [True, False])
def test_throughput(engine, down, cc):
    """Through the carrier only; the program's end has this machine's bbr or reno."""
    total = 0
    mb = 8 * 255
    cpu = engine.cpu()
    t = time.time()
    if down:
        for _ in range(8):
            with engine.connect("10.1.0.255", 19) as s:
                use(s, cc)
                buf = bytearray(1 << 20)
                while n := s.recv_into(buf):
                    total += n
    else:
        with engine.connect("10.1.0.1", 9) as s:
            use(s, cc)
            buf = bytes(1 << 20)
            for _ in range(mb):
                s.sendall(buf)
            total = mb << 20
            s.shutdown(socket.SHUT_WR)
            s.recv(1)
    t, cpu = time.time() - t, engine.cpu() - cpu
    print(f"\n{'down' if down else 'up'} {cc}: {total * 8 / t / 1e9:.1f} Gbit/s, engine {cpu / total * 1e9:.3f} CPU-s/GB")
    assert total * 8 / t > 3e9


@pytest.mark.timing
def test_drain_waits_for_delivery(engine):
    l, port = listening(engine)
    c = engine.connect("10.1.1.1", port)
    s = l.accept()[0]
    c.sendall(b"x" * 14_000_000)
    c.close()
    t = time.time()
    r = engine.ctl.ask(ctl.DRAIN, value=300)
    assert r.result == -errno.ETIMEDOUT and 0.25 < time.time() - t < 0.6
    data = b""
    pid = os.fork()
    if pid == 0:
        r = engine.ctl.ask(ctl.DRAIN, value=5000)
        os._exit(0 if r.result == 0 else 1)
    data = read_all(s)
    assert len(data) == 14_000_000
    s.close()
    assert os.waitpid(pid, 0)[1] == 0
    l.close()


def test_verdict_lines(engine):
    engine.connect("10.1.1.1", 7).close()
    engine.settled()
    assert "mptcp-run: 10.1.1.1:7: connected, multipath over fake0 (10.1.1.129)" in engine.text(), engine.text()


def test_verdict_goes_to_the_clients_log(engine, tmp_path):
    k = ctl.Ctl(engine.path)
    with open(tmp_path / "mine", "w+") as f:
        assert k.ask(ctl.HELLO, [f.fileno()], value=1).result == 0
        k.connect("10.1.1.2", 7).close()
        engine.settled()
        f.seek(0)
        assert "10.1.1.2:7" in f.read()
    assert "10.1.1.2:7" not in engine.text()
    k.close()


def test_garbage_does_no_harm(engine):
    for n in (1, 10, 100, 4000):
        engine.ctl.s.send(os.urandom(n))
    engine.ctl.s.send(b"\1\0\77\0" + bytes(400))
    assert engine.ctl.ask(ctl.HELLO).result == 0


def test_messages_cannot_fill_the_engines_table_of_descriptors(engine):
    """Empty messages that bring descriptors, a log said twice, more descriptors than a question has room for."""
    fds, null = engine.fds(), [os.open("/dev/null", os.O_RDWR) for _ in range(3)]
    held = engine.connect("10.1.1.1", 7)
    ask = "\0mpshim-id/" + socket.inet_aton(held.getpeername()[0]).hex()
    for _ in range(20):
        k = ctl.Ctl(engine.path)
        for _ in range(3):
            assert k.ask(ctl.HELLO, null[:1]).result == 0
        socket.send_fds(k.s, [b""], null)
        k.close()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as g:
            g.connect(ask)
            socket.send_fds(g, [bytes(ctl.Req(version=2, op=ctl.QUERY))], null[:2])
            assert len(g.recv(1000)) == ctl.C.sizeof(ctl.Rep)
    held.close()
    for fd in null:
        os.close(fd)
    engine.settled()
    assert engine.holds(fds)
