"""The shim's wrappers, with a fake engine (tests/shim/fake/engine.c): no privilege and no network but lo.

Each small program runs bare against a real server on the loopback, and under libmpshim.so against the same server
behind the fake engine; what it prints must agree, the addresses being replaced by their roles.
"""
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / os.environ.get("B", "build")
PYTHON = sys.executable
FAR = "203.0.113.5"  # documentation address: only the fake engine leads there


def make_fake(d):
    """A directory with libmpshim.so and the fake engine beside it."""
    d.mkdir()
    subprocess.run(["make", "-s", "-C", ROOT, BUILD.relative_to(ROOT) / "libmpshim.so", BUILD.relative_to(ROOT) / "mptcp-run"], check=True)
    for f in ("libmpshim.so", "mptcp-run"):
        (d / f).write_bytes((BUILD / f).read_bytes())
        (d / f).chmod(0o755)
    subprocess.run(["gcc", "-std=c17", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-I", ROOT / "libmpshim", "-shared", "-fPIC",
                    "-pthread", "-o", d / "libmpshim-engine.so", ROOT / "tests/shim/fake/engine.c"], check=True)


@pytest.fixture(scope="session")
def fake(made_once):
    return made_once("fake-shim", make_fake)


@pytest.fixture(scope="session")
def shim_programs():
    """tests/shim/*.c, built."""
    names = [p.stem for p in (ROOT / "tests/shim").glob("*.c")]
    b = BUILD.relative_to(ROOT)
    subprocess.run(["make", "-s", "-C", ROOT, *[f"{b}/tests/shim_{n}" for n in names]], check=True)
    return {n: BUILD / "tests" / f"shim_{n}" for n in names}


class Server(threading.Thread):
    """A loopback server; each connection is given to handler(socket, self)."""

    def __init__(self, handler):
        super().__init__(daemon=True)
        self.handler, self.received, self.done = handler, [], threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.one, args=(s,), daemon=True).start()

    def one(self, s):
        try:
            self.handler(s, self)
        except OSError as e:
            self.received.append(e.errno)
        finally:
            s.close()
            self.done.set()

    def close(self):
        self.listener.close()


def echo(s, _):
    while data := s.recv(65536):
        s.sendall(data)


def collect(s, server):
    data = b""
    while piece := s.recv(65536):
        data += piece
    server.received.append(data)


@pytest.fixture
def server():
    made = []

    def make(handler=echo):
        made.append(Server(handler))
        return made[-1]

    yield make
    for s in made:
        s.close()


def env_for(fake, **extra):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MPSHIM_", "FAKE_", "LD_PRELOAD"))}
    if fake:
        env.update(LD_PRELOAD=str(fake / "libmpshim.so"), MPSHIM_ENGINE="inside")
    env.update(extra)
    return env


def run(argv, fake=None, timeout=30, **extra):
    return subprocess.run([str(a) for a in argv], env=env_for(fake, **extra), capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)


def python(code, *args, fake=None, **extra):
    prelude = "import os,socket,sys,time,select,errno,subprocess,struct,signal\nHOST,PORT=sys.argv[1],int(sys.argv[2])\n"
    r = run([PYTHON, "-c", prelude + code, *args], fake, **extra)
    assert r.returncode == 0, (r.returncode, r.stdout, r.stderr)
    return r.stdout


def both(fake, code, port, **extra):
    """The program's output bare and under the shim; far address and ports are made equal."""
    bare = python(code, "127.0.0.1", port)
    shim = python(code, FAR, port, fake=fake, **extra)
    return bare.replace("127.0.0.1", FAR), shim


def same(fake, code, port, **extra):
    bare, shim = both(fake, code, port, **extra)
    assert bare == shim
    return shim


# ---- the list of calls


def test_exports_are_the_list_of_calls(fake):
    listed = set(re.findall(r"^X\([^,(]*, *(\w+)", (ROOT / "libmpshim/shim/calls.def").read_text(), re.M))
    nm = subprocess.run(["nm", "-D", "--defined-only", fake / "libmpshim.so"], capture_output=True, text=True, check=True).stdout
    assert {line.split()[-1] for line in nm.splitlines()} == listed


def test_needs_only_libc(fake):
    out = subprocess.run(["readelf", "-d", fake / "libmpshim.so"], capture_output=True, text=True, check=True).stdout
    assert re.findall(r"NEEDED.*\[(.*)\]", out) == ["libc.so.6"]


@pytest.mark.needs("strace")
def test_a_program_without_tcp_opens_nothing(fake):
    r = run(["strace", "-f", "-o", "/dev/stdout", "true"], fake)
    if r.returncode:
        pytest.skip("no strace")
    after = r.stdout.split("libmpshim.so", 1)[1]
    assert "libmpshim-engine" not in after and "mpshim-" not in after


# ---- connect


def test_blocking_connect_and_names(fake, server):
    out = same(fake, """
s = socket.create_connection((HOST, PORT), 5)
s.sendall(b"hello"); print(s.recv(5), s.getpeername())
""", server().port)
    assert FAR in out


def test_true_local_name(fake, server):
    out = python("s=socket.create_connection((HOST,PORT)); print(s.getsockname(), s.getpeername())", FAR, server().port, fake=fake)
    assert "192.0.2.1" in out and "40000" in out and "127." not in out


def test_nonblocking_connect_in_epoll_before_connect(fake, server):
    same(fake, """
s = socket.socket(); s.setblocking(False)
e = select.epoll(); e.register(s, select.EPOLLOUT | select.EPOLLIN | select.EPOLLET)
e.poll(0)
r = s.connect_ex((HOST, PORT)); assert r in (0, errno.EINPROGRESS), r
ev = [m for f, m in e.poll(5)]
while ev and ev[0] & select.EPOLLHUP: ev = [m for f, m in e.poll(5)]
print(ev, s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
print(e.poll(0.1))
s.send(b"x"); print([m & select.EPOLLIN for f, m in e.poll(5)], s.recv(9), s.connect_ex((HOST, PORT)) in (0, errno.EISCONN))
""", server().port)


def test_connect_that_is_pending_says_so(fake):
    out = python("""
s = socket.socket(); s.setblocking(False)
print(s.connect_ex((HOST, 3)) == errno.EINPROGRESS, s.connect_ex((HOST, 3)) == errno.EALREADY)
try: s.getpeername()
except OSError as e: print(errno.errorcode[e.errno])
print(select.select([], [s], [], 0.2), s.getsockname())
s.settimeout(0.2)
t = socket.socket(); t.settimeout(0.3)
try: t.connect((HOST, 3))
except TimeoutError: print("timeout")
""", FAR, 3, fake=fake)
    assert out.splitlines() == ["True True", "ENOTCONN", "([], [], []) ('192.0.2.1', 40000)", "timeout"]


@pytest.mark.parametrize("port,name", [(1, "ECONNREFUSED"), (2, "ETIMEDOUT")])
def test_true_errno_of_a_blocking_connect(fake, port, name):
    out = python("print(errno.errorcode[socket.socket().connect_ex((HOST, PORT))])", FAR, port, fake=fake)
    assert out.strip() == name


@pytest.mark.parametrize("port,name", [(1, "ECONNREFUSED"), (2, "ETIMEDOUT")])
def test_true_errno_in_so_error(fake, port, name):
    out = python("""
s = socket.socket(); s.setblocking(False); s.connect_ex((HOST, PORT)); select.select([], [s], [], 5)
print(errno.errorcode[s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)], s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
""", FAR, port, fake=fake)
    assert out.strip() == name + " 0"


def test_the_socket_can_connect_again_after_a_failure(fake, server):
    out = python("""
s = socket.socket(); r = s.connect_ex((HOST, 1)); s.connect((HOST, PORT)); s.sendall(b"z")
print(errno.errorcode[r], s.recv(1), s.getpeername()[0])
""", FAR, server().port, fake=fake)
    assert out.strip() == f"ECONNREFUSED b'z' {FAR}"


def test_after_a_failure_the_kernel_may_carry_the_same_socket(fake, server):
    out = python("""
s = socket.socket(); r = s.connect_ex((HOST, 1)); s.connect(("127.0.0.1", PORT)); s.sendall(b"z")
print(errno.errorcode[r], s.recv(1), s.getpeername()[0])
""", FAR, server().port, fake=fake)
    assert out.strip() == "ECONNREFUSED b'z' 127.0.0.1"


def test_kernel_verdict_leaves_the_socket_untouched(fake):
    out = python("""
s = socket.socket(); s.setblocking(False); s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"")
print(errno.errorcode.get(s.connect_ex((HOST, 9))), s.getsockname()[0].startswith("127.64"))
""", FAR, 9, fake=fake)
    assert out.split()[1] == "False"


@pytest.mark.parametrize("how", ["s.bind(('127.0.0.1', 0))", "s.bind(('0.0.0.0', 0))"])
def test_bound_sockets_stay_on_the_kernel(fake, server, how):
    out = python(f"""
s = socket.socket()
{how}
s.settimeout(0.3)
try: s.connect((HOST, PORT)); print("connected")
except OSError as e: print("kernel")
""", FAR, server().port, fake=fake)
    assert out.strip() == "kernel"


def test_mptcp_sockets_are_carried_and_say_what_they_are(fake, server):
    out = python("""
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262); print(s.getsockopt(1, 38), len(s.getsockopt(284, 1, 200)))
s.connect((HOST, PORT)); s.sendall(b"m"); print(s.recv(1), s.getpeername()[0], s.getsockopt(1, 38))
""", FAR, server().port, fake=fake)
    assert out == f"262 96\nb'm' {FAR} 262\n"


@pytest.mark.parametrize("v6only", [0, 1])
def test_ipv6(fake, server, v6only):
    out = python(f"""
s = socket.socket(socket.AF_INET6); s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, {v6only}); s.settimeout(5)
s.connect(("2001:db8::5", PORT)); s.sendall(b"six"); print(s.recv(3), s.getpeername()[0])
""", "::", server().port, fake=fake)
    assert out.strip() == "b'six' 2001:db8::5"


def test_mapped_address(fake, server):
    out = python(f"""
s = socket.socket(socket.AF_INET6); s.connect(("::ffff:{FAR}", PORT)); s.sendall(b"six"); print(s.recv(3), s.getpeername()[0], s.getsockname()[0])
""", "::", server().port, fake=fake)
    assert out.strip() == f"b'six' ::ffff:{FAR} ::ffff:192.0.2.1"


def test_fast_open(fake, server):
    out = python("""
s = socket.socket(); print(s.sendto(b"fast", socket.MSG_FASTOPEN, (HOST, PORT)), s.recv(4), s.getpeername()[0])
t = socket.socket(); t.setsockopt(socket.IPPROTO_TCP, 30, 1); t.connect((HOST, PORT)); t.sendall(b"open"); print(t.recv(4))
""", FAR, server().port, fake=fake)
    assert out.splitlines() == [f"4 b'fast' {FAR}", "b'open'"]


# ---- data and ends


def test_half_close(fake, server):
    def count(s, _):
        n = 0
        while piece := s.recv(65536):
            n += len(piece)
        s.sendall(str(n).encode())

    same(fake, """
s = socket.create_connection((HOST, PORT)); s.sendall(b"a" * 300000); s.shutdown(socket.SHUT_WR); print(s.recv(100), s.recv(100))
""", server(count).port)


def test_reset_is_not_eof(fake, server):
    def reset(s, _):
        s.recv(1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    same(fake, """
s = socket.create_connection((HOST, PORT)); s.sendall(b"x")
try: print(s.recv(10))
except OSError as e: print(errno.errorcode[e.errno])
""", server(reset).port)


def test_options_reach_the_engine(fake, server):
    out = python("""
s = socket.socket(); s.setsockopt(6, 1, 1); s.connect((HOST, PORT))
def info(): return struct.unpack_from("I", s.getsockopt(6, 11, 256), 68)[0], struct.unpack_from("Q", s.getsockopt(6, 11, 256), 200)[0]
print(info()); s.setsockopt(6, 1, 0); time.sleep(0.05); print(info())
""", FAR, server().port, fake=fake)
    assert out.splitlines() == ["(12345, 1)", "(12345, 0)"]


# ---- accept

SERVE = """
l = socket.socket(AF); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if AF == socket.AF_INET6: l.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, V6ONLY)
l.bind((ANY, PORT)); l.listen(8); print("ready", flush=True)
for i in range(2):
    s, a = l.accept(); print(a[0], s.getpeername() == a, s.getsockname()[0]); s.sendall(s.recv(10)); s.close()
l.close()
"""


PORTS = iter(range(10000 + os.getpid() % 200 * 100, 10000 + os.getpid() % 200 * 100 + 100, 2))


def free_port_pair():
    """Below those that the kernel gives to whoever asks, and another worker's are others: nobody takes them meanwhile."""
    for port in PORTS:
        with socket.socket() as a, socket.socket() as b:
            try:
                a.bind(("127.0.0.1", port))
                b.bind(("127.0.0.1", port + 1))
                return port
            except OSError:
                pass
    raise OSError("no free port")


@pytest.mark.parametrize("af,any_,v6only,seen", [
    ("socket.AF_INET", "0.0.0.0", 0, ["198.51.100.7 True 192.0.2.1", "127.0.0.1 True 127.0.0.1"]),
    ("socket.AF_INET6", "::", 0, ["::ffff:198.51.100.7 True ::ffff:192.0.2.1", "::ffff:127.0.0.1 True ::ffff:127.0.0.1"]),
    ("socket.AF_INET6", "::", 1, ["::ffff:198.51.100.7 True ::ffff:192.0.2.1", "::1 True ::1"]),
])
def test_accept_tells_the_true_client_and_local_ones_stay(fake, af, any_, v6only, seen):
    port = free_port_pair()
    code = f"import socket\nAF={af}; ANY='{any_}'; V6ONLY={v6only}; PORT={port}\n" + SERVE
    p = subprocess.Popen([PYTHON, "-c", code], env=env_for(fake), stdout=subprocess.PIPE, text=True)
    try:
        assert p.stdout.readline() == "ready\n"
        for door in (("127.0.0.1", port + 1), ("::1" if v6only else "127.0.0.1", port)):
            with socket.create_connection(door, 5) as s:
                s.sendall(b"ping")
                assert s.recv(10) == b"ping"
        assert p.stdout.read().splitlines() == seen
        assert p.wait(10) == 0
    finally:
        p.kill()
        p.wait()


def test_a_pre_forked_server_accepts_in_its_children(fake):
    port = free_port_pair()
    code = f"""
import os, socket
l = socket.create_server(("0.0.0.0", {port}))
kids = []
for i in range(2):
    pid = os.fork()
    if not pid:
        s, a = l.accept(); s.sendall(a[0].encode() + b" " + s.getpeername()[0].encode()); s.close(); os._exit(0)
    kids.append(pid)
print("ready", flush=True)
for k in kids: os.waitpid(k, 0)
"""
    p = subprocess.Popen([PYTHON, "-c", code], env=env_for(fake), stdout=subprocess.PIPE, text=True)
    try:
        assert p.stdout.readline() == "ready\n"
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", port + 1), 5) as s:
                assert s.recv(100) == b"198.51.100.7 198.51.100.7"
        assert p.wait(10) == 0
    finally:
        p.kill()
        p.wait()


# ---- descriptors


def test_dup2_over_a_carrier_and_dup_of_one(fake, server):
    same(fake, """
s = socket.create_connection((HOST, PORT)); d = socket.socket(fileno=os.dup(s.fileno())); n = s.fileno()
r, w = os.pipe(); os.dup2(r, n); os.write(w, b"pipe"); print(os.read(n, 4))
d.sendall(b"still"); print(d.recv(5), d.getpeername()[0])
""", server().port)


def test_closing_all_numbers_spares_the_control_connection(fake, server):
    same(fake, """
a = socket.create_connection((HOST, PORT)); n = a.fileno()
for i in range(3, 1024):
    if i != n:
        try: os.close(i)
        except OSError: pass
import ctypes; libc = ctypes.CDLL(None); libc.close_range(n + 1, 0xffffffff, 0); libc.closefrom(n + 1)
print(a.getpeername()[0]); b = socket.create_connection((HOST, PORT)); b.sendall(b"again"); print(b.recv(5), b.getpeername()[0])
""", server().port)


def test_dup2_over_the_control_connection(fake, server):
    same(fake, """
a = socket.create_connection((HOST, PORT)); n = a.fileno()
keep = os.open("/dev/null", os.O_RDONLY)
for i in range(900, 1000): os.dup2(keep, i)
b = socket.create_connection((HOST, PORT)); b.sendall(b"again"); print(b.recv(5), a.getpeername()[0], b.getpeername()[0])
""", server().port)


def test_fork_then_write_in_the_child(fake, server):
    same(fake, """
s = socket.create_connection((HOST, PORT)); sys.stdout.flush()
if os.fork() == 0:
    s.sendall(b"child"); print(s.recv(5), s.getpeername()[0]); sys.stdout.flush(); os._exit(0)
os.wait(); s.sendall(b"parent"); print(s.recv(6))
""", server().port)


def test_new_connection_in_a_forked_child(fake, server):
    same(fake, """
s = socket.create_connection((HOST, PORT)); sys.stdout.flush()
if os.fork() == 0:
    t = socket.create_connection((HOST, PORT)); t.sendall(b"child"); print(t.recv(5), t.getpeername()[0]); t.close(); sys.stdout.flush(); os._exit(0)
print(os.wait()[1]); s.sendall(b"parent"); print(s.recv(6))
""", server().port)


def test_spawned_programs_do_not_disturb(fake, server):
    same(fake, """
s = socket.create_connection((HOST, PORT))
print(subprocess.run(["echo", "vfork"], capture_output=True).stdout, os.waitpid(os.posix_spawn("/bin/true", ["true"], os.environ), 0)[1])
print(subprocess.run(["cat"], stdin=subprocess.DEVNULL, pass_fds=[s.fileno()]).returncode)
s.sendall(b"alive"); print(s.recv(5), s.getpeername()[0])
""", server().port)


# ---- the end


@pytest.mark.parametrize("end", ["sys.exit(0)", "os._exit(0)", "s.close()", "os.execv('/bin/true', ['true'])"])
def test_exit_with_unsent_data_loses_nothing(fake, server, end):
    s = server(collect)
    close = "s.close();" if "exec" in end else ""
    python(f"s = socket.create_connection((HOST, PORT)); s.sendall(b'q' * 200000); {close} {end}", FAR, s.port, fake=fake, FAKE_SLOW_US="20000")
    assert s.done.wait(10)
    assert s.received == [b"q" * 200000]


def test_buffered_stream_is_flushed_at_exit(fake, server, shim_programs):
    s = server(collect)
    r = run([shim_programs["stream"], FAR, s.port], fake)
    assert r.returncode == 0, r.stderr
    assert s.done.wait(10)
    assert s.received == [b"buffered until exit\n"]


def test_bash_dev_tcp(fake, server):
    s = server(collect)
    r = run(["bash", "-c", f"exec 3<>/dev/tcp/{FAR}/{s.port}; echo hello >&3; echo world >&3"], fake)
    assert r.returncode == 0, r.stderr
    assert s.done.wait(10)
    assert s.received == [b"hello\nworld\n"]


# ---- without an engine


def test_missing_engine_is_told_and_the_kernel_carries(fake, server, tmp_path):
    (tmp_path / "libmpshim.so").write_bytes((fake / "libmpshim.so").read_bytes())
    r = run([PYTHON, "-c", f"import socket; s=socket.socket(); s.settimeout(0.3); s.connect_ex(('{FAR}',80)); s=socket.create_connection(('127.0.0.1',{server().port})); s.sendall(b'x'); print(s.recv(1))"],
            tmp_path, MPSHIM_VERBOSE="1")
    assert r.stdout == "b'x'\n"
    assert f"{FAR}:80: kernel TCP: libmpshim-engine.so cannot be loaded" in r.stderr


def test_failing_engine_is_told(fake):
    r = run([PYTHON, "-c", f"import socket; s=socket.socket(); s.settimeout(0.3); s.connect_ex(('{FAR}',80))"], fake, MPSHIM_VERBOSE="1", FAKE_FAILS="1")
    assert r.returncode == 0
    assert "the fake engine was told to fail" in r.stderr


# ---- mptcp-run


def test_mptcp_run_sets_the_environment(fake):
    r = run([fake / "mptcp-run", "--cc=cubic", "--max-subflows=2", "-v", "env"], LD_PRELOAD="", MPSHIM_SCHEDULER="minrtt")
    got = dict(line.split("=", 1) for line in r.stdout.splitlines() if "=" in line)
    assert got["LD_PRELOAD"] == str(fake / "libmpshim.so")
    assert (got["MPSHIM_CC"], got["MPSHIM_MAX_SUBFLOWS"], got["MPSHIM_VERBOSE"], got["MPSHIM_SCHEDULER"]) == ("cubic", "2", "1", "minrtt")


def test_mptcp_run_keeps_what_was_preloaded(fake):
    r = run([fake / "mptcp-run", "env"], LD_PRELOAD="/lib/x86_64-linux-gnu/libm.so.6")
    assert f"LD_PRELOAD=/lib/x86_64-linux-gnu/libm.so.6:{fake}/libmpshim.so" in r.stdout


@pytest.mark.parametrize("arg", ["--cc=vegas", "--max-subflows=9", "--nonsense=1", "-x", "--cc"])
def test_mptcp_run_refuses_what_it_does_not_know(fake, arg):
    r = run([fake / "mptcp-run", arg, "true"])
    assert r.returncode == 2 and "mptcp-run: " + arg.split("=")[0] in r.stderr


def test_mptcp_run_reports_unknown_variables(fake):
    r = run([fake / "mptcp-run", "true"], MPSHIM_CCC="lia")
    assert r.returncode == 0 and "MPSHIM_CCC: no such setting" in r.stderr


def test_mptcp_run_tells_of_static_programs_and_exit_codes(fake, tmp_path):
    (tmp_path / "s.c").write_text("int main(void){return 7;}")
    subprocess.run(["gcc", "-static", "-o", tmp_path / "s", tmp_path / "s.c"], check=True)
    r = run([fake / "mptcp-run", tmp_path / "s"])
    assert r.returncode == 7 and "statically linked" in r.stderr
    assert run([fake / "mptcp-run", "no-such-command-here"]).returncode == 127
    assert run([fake / "mptcp-run", "/etc/passwd"]).returncode == 126


# ---- cost


@pytest.mark.timing
def test_foreign_descriptors_cost_next_to_nothing(fake, shim_programs):
    """read() of one byte from /dev/zero, ns each: printed; the bound is generous because machines are busy."""
    bare, shim = (min(float(run([shim_programs["cost"]], f).stdout) for _ in range(5)) for f in (None, fake))
    print(f"read: {bare:.0f} ns bare, {shim:.0f} ns under the shim")
    assert shim < bare * 1.5 + 20
