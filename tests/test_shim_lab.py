"""Programs under the shim with the real engine, in a lab without emulated links: each small program runs bare and
under mptcp-run, with the engine inside and in the helper, and must print the same."""

import hashlib
import os
import re
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

import pytest

import lab as lab_package

ROOT = Path(__file__).resolve().parent.parent
MPTCP_RUN = ROOT / os.environ.get("B", "build") / "mptcp-run"
PYTHON = "/usr/bin/python3"
FAR, FAR6, NEAR, NEAR6 = "10.10.1.1", "fd00:10:1::1", "10.10.1.2", "fd00:10:1::2"
ECHO, COUNT, RESET, KEEP, NAME = range(7001, 7006)
PRELUDE = """import os,socket,sys,time,select,errno,subprocess,struct,signal
FAR,FAR6="10.10.1.1","fd00:10:1::1"
def name(e): return errno.errorcode[e] if e else 0
"""
HOSTS = ["inside", "helper"]


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    if os.geteuid():
        pytest.skip("needs root, to make network namespaces")
    with lab_package.two_path(direct=True) as made:
        made.dir = tmp_path_factory.mktemp("far")
        far = made.server.popen([PYTHON, ROOT / "tests/shim/far.py", made.dir], stdout=subprocess.PIPE)
        assert far.stdout.readline() == "ready\n"
        yield made


def run(net, code, engine=None, env=None, timeout=30):
    wrap = [MPTCP_RUN, f"--engine={engine}"] if engine else []
    done = net.client.run([*wrap, PYTHON, "-c", PRELUDE + code], env=env, timeout=timeout, check=False)
    assert done.returncode == 0, (engine, done.returncode, done.stdout, done.stderr)
    return done.stdout


def same(net, code, **options):
    """What the program prints, bare and with both hosts; once, when all agree."""
    outs = {engine or "bare": run(net, code, engine, **options) for engine in (None, *HOSTS)}
    assert outs["inside"] == outs["bare"], outs
    assert outs["helper"] == outs["bare"], outs
    return outs["bare"]


def test_it_is_the_engine_that_carries(net):
    for engine in HOSTS:
        done = net.client.run([MPTCP_RUN, "-v", f"--engine={engine}", PYTHON, "-c", PRELUDE + f"s=socket.create_connection((FAR,{ECHO})); s.sendall(b'x'); s.recv(1)"])
        assert f"{FAR}:{ECHO}" in done.stderr and "kernel TCP" not in done.stderr, done.stderr


def test_blocking_connect_and_names(net):
    out = same(net, f"""
s = socket.create_connection((FAR, {ECHO}), 5); s.sendall(b"hello"); print(s.recv(5), s.getpeername(), s.getsockname()[0])
t = socket.create_connection((FAR6, {ECHO}), 5); t.sendall(b"hello"); print(t.recv(5), t.getpeername(), t.getsockname()[0])
u = socket.socket(socket.AF_INET6); u.connect(("::ffff:" + FAR, {ECHO})); u.sendall(b"hi"); print(u.recv(5), u.getpeername(), u.getsockname()[0])
v = socket.socket(socket.AF_INET6); v.setsockopt(41, 26, 1); v.connect((FAR6, {ECHO})); v.sendall(b"hi"); print(v.recv(5), v.getpeername(), v.getsockname()[0])
w = socket.create_connection((FAR, {NAME})); print(w.recv(100), w.recv(100))
""")
    assert NEAR in out and NEAR6 in out


def test_the_local_port_is_the_one_on_the_wire(net):
    code = f"s = socket.create_connection((FAR, {ECHO})); s.sendall(b'x'); s.recv(1); print(s.getsockname()[1], flush=True); input()"
    p = net.client.popen([MPTCP_RUN, PYTHON, "-c", PRELUDE + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    port = p.stdout.readline().strip()
    assert f":{port}" in net.server.run(["ss", "-Htn", "sport", "=", f":{ECHO}"]).stdout
    net.client.stop(p)


def test_nonblocking_connect_registered_before(net):
    same(net, f"""
s = socket.socket(); s.setblocking(False); e = select.epoll()
print(name(s.connect_ex((FAR, {ECHO}))))
e.register(s, select.EPOLLOUT | select.EPOLLIN | select.EPOLLET)
print([m for f, m in e.poll(5)], s.getsockopt(1, 4), e.poll(0.1)); s.send(b"x")
time.sleep(0.2); print([bool(m & select.EPOLLIN) for f, m in e.poll(5)], s.recv(9))
""")


def test_refused(net):
    assert same(net, """
s = socket.socket(); print(name(s.connect_ex((FAR, 4))))
s = socket.socket(); s.setblocking(False); print(name(s.connect_ex((FAR, 4)))); p = select.poll(); p.register(s, select.POLLOUT)
p.poll(5000)   # the kernel's tcp_reset() says the error before the end: who looks between sees POLLERR alone
print([m for f, m in p.poll(0)], name(s.getsockopt(1, 4)), name(s.getsockopt(1, 4)))
s = socket.socket(socket.AF_INET6); s.settimeout(5)
try: s.connect((FAR6, 4))
except OSError as e: print(name(e.errno))
""").splitlines()[0] == "ECONNREFUSED"


@pytest.mark.timing
def test_refusal_is_quick(net):
    for engine in HOSTS:
        out = run(net, "s=socket.create_connection((FAR,7001)); a=time.monotonic()\nfor i in range(5): socket.socket().connect_ex((FAR,4))\nprint((time.monotonic()-a)*200)", engine)
        assert float(out) < 50  # ms each


def test_unreachable(net):
    same(net, """
s = socket.socket(); s.settimeout(10); print(name(s.connect_ex(("203.0.113.1", 80))))
""")


@pytest.mark.parametrize("far, route", [("10.10.1.77", ""), ("198.18.0.1", "198.18.0.0/24 via 10.10.1.78"), ("fd00:10:1::77", "")])
def test_neighbour_unreachable(net, far, route):
    """The host, or the gateway to it, does not answer on our own link."""
    if route:
        net.client.ip("route", "add", *route.split())
    out = same(net, f"""
a = time.monotonic()
s = socket.socket(socket.AF_INET6 if ":" in "{far}" else socket.AF_INET); s.settimeout(10)
print(name(s.connect_ex(("{far}", 80))), time.monotonic() - a < 6)
""")
    assert out == "EHOSTUNREACH True\n"


def test_connect_again_after_refused(net):
    same(net, f"""
s = socket.socket(); print(name(s.connect_ex((FAR, 4)))); s.connect((FAR, {ECHO})); s.sendall(b"z"); print(s.recv(1), s.getpeername())
""")


def test_half_close(net):
    same(net, f"""
s = socket.create_connection((FAR, {COUNT})); s.sendall(b"a" * 3000000); s.shutdown(socket.SHUT_WR); print(s.recv(100), s.recv(100))
""")


def test_reset_comes_after_the_data_and_is_not_eof(net):
    same(net, f"""
s = socket.create_connection((FAR, {RESET})); s.sendall(b"x"); time.sleep(0.3)
for i in range(3):
    try: print(s.recv(100))
    except OSError as e: print(name(e.errno))
""")


def test_write_after_reset(net):
    same(net, f"""
s = socket.create_connection((FAR, {RESET})); s.sendall(b"x"); time.sleep(0.3)
for i in range(3):
    try: print(s.send(b"more"))
    except OSError as e: print(name(e.errno))
""")


@pytest.mark.parametrize("end", ["sys.exit(0)", "os._exit(0)", "s.close()", "s.close(); os.execv('/bin/true', ['true'])"])
@pytest.mark.parametrize("engine", HOSTS)
def test_exit_with_unsent_data_loses_nothing(net, engine, end):
    kept = net.dir / "kept"
    kept.unlink(missing_ok=True)
    run(net, f"s = socket.create_connection((FAR, {KEEP})); s.sendall(b'q' * 3000000); {end}", engine)
    until = time.monotonic() + 10
    while not kept.exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert kept.read_text() == f"3000000 {hashlib.sha256(b'q' * 3000000).hexdigest()}"


@pytest.mark.timing
def test_exit_is_quick_when_all_is_delivered(net):
    for engine in HOSTS:
        a = time.monotonic()
        run(net, f"s = socket.create_connection((FAR, {ECHO})); s.sendall(b'x'); s.recv(1)", engine)
        assert time.monotonic() - a < 1


def test_fork_then_write_in_the_child(net):
    same(net, f"""
s = socket.create_connection((FAR, {ECHO})); sys.stdout.flush()
if os.fork() == 0:
    s.sendall(b"child"); print(s.recv(5), s.getpeername()); sys.stdout.flush(); os._exit(0)
print(os.wait()[1]); s.sendall(b"parent"); print(s.recv(6))
""")


def test_new_connection_in_a_forked_child(net):
    same(net, f"""
s = socket.create_connection((FAR, {ECHO})); sys.stdout.flush()
if os.fork() == 0:
    t = socket.create_connection((FAR, {ECHO})); t.sendall(b"child"); print(t.recv(5)); t.close(); sys.stdout.flush(); os._exit(0)
print(os.wait()[1]); s.sendall(b"parent"); print(s.recv(6))
""")


def test_descriptor_passed_to_another_program(net):
    same(net, f"""
s = socket.create_connection((FAR, {ECHO})); n = s.fileno()
r = subprocess.run([sys.executable, "-c", f"import socket; s=socket.socket(fileno={{n}}); s.sendall(b'passed'); print(s.recv(6), s.getpeername())"], pass_fds=[n], capture_output=True, text=True)
print(r.stdout, r.returncode); s.sendall(b"still"); print(s.recv(5))
""".replace(", s.getpeername())\"]", ")\"]"))


def test_closing_all_numbers(net):
    same(net, f"""
a = socket.create_connection((FAR, {ECHO})); n = a.fileno()
import ctypes; libc = ctypes.CDLL(None); libc.close_range(n + 1, 0xffffffff, 0); libc.closefrom(n + 1)
for i in range(n + 1, 1024):
    try: os.close(i)
    except OSError: pass
b = socket.create_connection((FAR, {ECHO})); b.sendall(b"again"); print(b.recv(5), a.getpeername(), b.getpeername())
""")


def test_the_started_helper_is_no_child_of_the_program(net):
    same(net, f"""
seen = []; signal.signal(signal.SIGCHLD, lambda *a: seen.append(1))
s = socket.create_connection((FAR, {ECHO})); s.sendall(b"x"); s.recv(1); time.sleep(0.3)
try: os.wait()
except ChildProcessError: print("no child", seen)
""", env={"MPSHIM_CONTROL": net.dir / "fresh"})
    assert (net.dir / "fresh").exists()


def test_many_short_connections(net):
    same(net, f"""
for i in range(200):
    s = socket.create_connection((FAR, {ECHO})); s.sendall(b"%d" % i); assert s.recv(9) == b"%d" % i; s.close()
print("done", len(os.listdir("/proc/self/fd")) < 12)
""", timeout=60)


def test_many_at_once(net):
    same(net, f"""
socks = [socket.create_connection((FAR, {ECHO})) for i in range(200)]
for i, s in enumerate(socks): s.sendall(b"%d" % i)
print(all(s.recv(9) == b"%d" % i for i, s in enumerate(socks)))
""", timeout=60)


def test_threads_connect_at_once(net):
    same(net, f"""
import threading
ok = []
def one(i):
    s = socket.create_connection((FAR, {ECHO})); s.sendall(b"%d" % i); ok.append(s.recv(9) == b"%d" % i)
ts = [threading.Thread(target=one, args=(i,)) for i in range(40)]
[t.start() for t in ts]; [t.join() for t in ts]; print(all(ok), len(ok))
""")


def test_children_and_threads_ask_at_once(net):
    """Each process has a socket of its own for answers; one thread at a time uses it."""
    same(net, f"""
import threading
def some(what):
    for i in range(20):
        text = b"%s %d" % (what, i); s = socket.create_connection((FAR, {ECHO})); s.sendall(text); assert s.recv(99) == text; s.close()
some(b"parent")
children = []
for k in range(3):
    pid = os.fork()
    if pid == 0: some(b"child %d" % k); os._exit(0)
    children.append(pid)
threads = [threading.Thread(target=some, args=(b"thread %d" % k,)) for k in range(3)]
for t in threads: t.start()
for t in threads: t.join()
print([os.waitpid(pid, 0)[1] for pid in children]); some(b"parent again")
""", timeout=60)


def test_the_socket_for_answers_is_closed_behind_our_back(net):
    same(net, f"""
import ctypes; libc = ctypes.CDLL(None)
def one(text): s = socket.create_connection((FAR, {ECHO})); s.sendall(text); print(s.recv(99), s.getpeername()); s.close()
for text in b"first", b"second", b"third": one(text)
socks = [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 900]
for fd in socks: libc.syscall(3, fd)  # close(), raw
a, b = os.pipe(); os.write(b, b"mine")
for fd in socks: libc.syscall(33, a, fd)  # dup2(), raw: other files have its numbers
for text in b"fourth", b"fifth", b"sixth": one(text)
print(os.read(a, 99))
""")


def test_bound_and_local_connections_stay_on_the_kernel(net):
    same(net, f"""
l = socket.create_server(("127.0.0.1", 0)); c = socket.create_connection(l.getsockname()); print(c.getpeername() == l.getsockname())
s = socket.socket(); s.bind(("{NEAR}", 0)); s.connect((FAR, {ECHO})); s.sendall(b"b"); print(s.recv(1), s.getsockname()[0])
o = socket.create_server(("{NEAR}", 0)); c = socket.create_connection(o.getsockname()); d, a = o.accept(); print(a[0], c.getpeername() == o.getsockname(), d.getsockname() == o.getsockname())
""")


def test_what_the_kernel_refuses_it_refuses_itself(net):
    same(net, f"""
def try_(s, a):
    s.settimeout(5)
    try: s.connect(a); print("connected")
    except OSError as e: print(name(e.errno))
v6 = socket.socket(socket.AF_INET6); v6.setsockopt(41, 26, 1); try_(v6, ("::ffff:" + FAR, {ECHO}))
import ctypes; libc = ctypes.CDLL(None, use_errno=True)
s = socket.socket(); a = struct.pack("=HH I 16s I", socket.AF_INET6, socket.htons({ECHO}), 0, socket.inet_pton(10, FAR6), 0)
print(libc.connect(s.fileno(), a, len(a)), name(ctypes.get_errno()))
print(libc.connect(s.fileno(), a, 3), name(ctypes.get_errno()), libc.connect(-1, a, len(a)), name(ctypes.get_errno()))
try_(s, ("0.0.0.0", 4)); try_(socket.socket(), ("224.0.0.1", 80)); try_(socket.socket(), ("255.255.255.255", 80))
""")


def test_signed_segments_stay_on_the_kernel(net):
    """TCP_MD5SIG: the far end knows no key, so nothing answers; the engine would have connected."""
    code = f"""
key = struct.pack("=HH4s120xBBHi80s", socket.AF_INET, 0, socket.inet_aton(FAR), 0, 0, 3, 0, b"key")
s = socket.socket(); s.setsockopt(6, 14, key); s.settimeout(0.5)
try: s.connect((FAR, {ECHO})); print("connected")
except OSError as e: print("kernel")
"""
    assert same(net, code) == "kernel\n"


SERVER = """
l = socket.create_server((ANY, 7300), family=AF, dualstack_ipv6=DUAL); print("ready", flush=True)
for i in range(N):
    s, a = l.accept(); print(a[0], s.getpeername() == a, s.getsockname()[:2]); s.sendall(s.recv(10)); s.close()
"""


@pytest.mark.parametrize("engine", [None, *HOSTS])
@pytest.mark.parametrize("any_,doors,seen", [
    ("0.0.0.0", [FAR, "10.10.2.1"], [f"{NEAR} True ('{FAR}', 7300)", "10.10.2.2 True ('10.10.2.1', 7300)"]),
    (FAR, [FAR], [f"{NEAR} True ('{FAR}', 7300)"]),
    ("::", [FAR, FAR6], [f"::ffff:{NEAR} True ('::ffff:{FAR}', 7300)", f"{NEAR6} True ('{FAR6}', 7300)"]),
    (FAR6, [FAR6], [f"{NEAR6} True ('{FAR6}', 7300)"]),
])
def test_accept_tells_the_truth(net, engine, any_, doors, seen):
    wrap = [MPTCP_RUN, f"--engine={engine}"] if engine else []
    head = f"import socket\nANY={any_!r}; N={len(doors)}; AF=socket.{'AF_INET6' if ':' in any_ else 'AF_INET'}; DUAL={any_ == '::'}\n"
    p = net.server.popen([*wrap, PYTHON, "-c", head + SERVER], stdout=subprocess.PIPE)
    try:
        assert p.stdout.readline() == "ready\n"
        for door in doors:
            code = f"s=socket.create_connection(({door!r},7300),5); s.sendall(b'ping'); print(s.recv(10))"
            assert run(net, code) == "b'ping'\n"
        assert p.stdout.read().splitlines() == seen
    finally:
        net.server.stop(p)
        time.sleep(0.2)


@pytest.mark.parametrize("engine", HOSTS)
def test_a_restarted_server_gets_its_port(net, engine):
    """The first one ends with a connection open; the second binds the same port with SO_REUSEADDR."""
    code = "import socket; l=socket.create_server(('0.0.0.0',7301)); print('ready',flush=True); s,a=l.accept(); s.sendall(b'hi'); s.recv(1)"
    for _ in range(3):
        p = net.server.popen([MPTCP_RUN, f"--engine={engine}", PYTHON, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            assert p.stdout.readline() == "ready\n", p.stderr.read()
            assert run(net, "s=socket.create_connection((FAR,7301),5); print(s.recv(10))") == "b'hi'\n"
        finally:
            net.server.stop(p)


@pytest.mark.timing
def test_a_listener_with_room_is_not_waited_for(net):
    """One connection after the other, each at once: none waits because another is on its way to the program."""
    server = net.server.popen([MPTCP_RUN, "--engine=helper", PYTHON, "-u", "-c", """
import socket
l = socket.create_server(("0.0.0.0", 6009), backlog=16); print("ready")
while True:
    s, _ = l.accept(); s.sendall(s.recv(9)); s.close()
"""], stdout=subprocess.PIPE)
    assert server.stdout.readline() == "ready\n"
    took = run(net, """
begin = time.monotonic()
for i in range(200):
    with socket.create_connection((FAR, 6009)) as s: s.sendall(b"x"); assert s.recv(9) == b"x"
print(time.monotonic() - begin)
""", "helper")
    net.server.stop(server)
    assert float(took) < 1.5  # 2 s if each waited 10 ms


@pytest.mark.parametrize("engine", HOSTS)
def test_a_listener_that_ended_refuses(net, engine):
    code = "import socket; l=socket.create_server(('0.0.0.0',7302)); print('ready',flush=True); l.accept(); l.close(); print('closed',flush=True); import time; time.sleep(5)"
    p = net.server.popen([MPTCP_RUN, f"--engine={engine}", PYTHON, "-c", code], stdout=subprocess.PIPE)
    try:
        assert p.stdout.readline() == "ready\n"
        run(net, "s=socket.create_connection((FAR,7302),5)")
        assert p.stdout.readline() == "closed\n"
        time.sleep(0.3)
        assert run(net, "s=socket.socket(); s.settimeout(5); print(name(s.connect_ex((FAR,7302))))") == "ECONNREFUSED\n"
    finally:
        net.server.stop(p)


def test_without_privilege_the_kernel_carries_and_it_is_told(net):
    done = net.client.run(["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", MPTCP_RUN, "-v", f"--control={net.dir}/none", PYTHON, "-c",
                           PRELUDE + f"s=socket.create_connection((FAR,{ECHO})); s.sendall(b'x'); print(s.recv(1))"], check=False)
    assert done.stdout == "b'x'\n", done.stderr
    assert "kernel TCP" in done.stderr and "CAP_NET_RAW" in done.stderr


def kill_helper(control):
    """The helper that serves this control socket, by SIGKILL. (Others have its command line: those that it forked itself away
    from may not have ended yet.)"""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        s.connect(str(control))
        pid, _, _ = struct.unpack("3i", s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    os.kill(pid, signal.SIGKILL)


def test_engine_killed_is_a_reset(net):
    """The helper dies: programs see ECONNRESET, never an end of file, and the next connection finds another one."""
    control = net.dir / "killed"
    p = net.client.popen([MPTCP_RUN, "--engine=helper", f"--control={control}", PYTHON, "-c", PRELUDE + f"""
s = socket.create_connection((FAR, {ECHO})); print("up", flush=True)
try: print(s.recv(1))
except OSError as e: print(name(e.errno))
t = socket.create_connection((FAR, {ECHO})); t.sendall(b"again"); print(t.recv(5))
"""], stdout=subprocess.PIPE)
    assert p.stdout.readline() == "up\n"
    kill_helper(control)
    assert p.stdout.read().splitlines() == ["ECONNRESET", "b'again'"]
    net.client.stop(p)


def test_a_server_survives_its_helper(net):
    control = net.dir / "server"
    p = net.server.popen([MPTCP_RUN, "-v", f"--control={control}", PYTHON, "-c", """
import socket
l = socket.create_server(("0.0.0.0", 7310)); print("ready", flush=True)
while True:
    s, a = l.accept()
    try:
        while data := s.recv(100): s.sendall(data)
    except OSError: pass
"""], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert p.stdout.readline() == "ready\n"
        with net.client.inside():
            s = socket.socket()
        s.settimeout(5)
        s.connect((FAR, 7310))
        s.sendall(b"one")
        assert s.recv(10) == b"one"
        kill_helper(control)
        time.sleep(0.3)
        out = run(net, "s=socket.create_connection((FAR,7310),5); s.sendall(b'two'); print(s.recv(10), s.getpeername()[0])", "inside")
        assert out == f"b'two' {FAR}\n"
    finally:
        net.server.stop(p)
    assert p.stderr.read().count("listening on 0.0.0.0:7310 (helper)") == 2


AGAIN = """
l = socket.create_server(("0.0.0.0", 7320)); print("ready", flush=True)
while True:
    s, a = l.accept(); s.recv(1); s.sendall(b"%d" % a[1]); s.close()
"""
ASK = """
s = socket.socket(); s.setsockopt(1, 2, 1)
def bound():
    try: s.bind(("", PORT))
    except OSError as e: return e.errno != errno.EADDRINUSE
    return True
end = time.monotonic() + 20
while PORT and not bound(): time.sleep(0.05); assert time.monotonic() < end   # whoever had it is about to leave it
s.settimeout(20); s.connect((FAR, 7320)); s.sendall(b"?"); print(s.recv(9).decode()); assert not s.recv(9)
"""


def test_a_port_is_used_again_while_the_server_is_in_time_wait(net):
    """By a client whose timestamps are of another clock: the kernel after an engine and an engine after the kernel, of which
    one is behind the other. A repetition of its SYN does it, where it once took a minute."""
    before = net.client.run(["cat", "/proc/sys/net/ipv4/ip_local_port_range"]).stdout.strip()
    p = net.server.popen([MPTCP_RUN, PYTHON, "-c", PRELUDE + AGAIN], stdout=subprocess.PIPE)
    try:
        assert p.stdout.readline() == "ready\n"
        net.client.sysctl({"ipv4/ip_local_port_range": "24000 24033"})   # two blocks, which nobody had: below the range of the other tests
        port = int(run(net, "PORT = 0" + ASK, "inside"))
        assert int(run(net, f"PORT = {port}" + ASK)) == port
        for port in 24000, 24016:
            run(net, f"PORT = {port}" + ASK)
        assert int(run(net, "PORT = 0" + ASK, "inside")) in (24000, 24016)
    finally:
        net.client.sysctl({"ipv4/ip_local_port_range": before})
        net.server.stop(p)


@pytest.mark.needs("tcpdump")
def test_the_clock_of_two_programs_timestamps_is_one_and_not_the_hosts_own(net):
    """RFC 7323 5.4: it does not tell how long the host is up. RFC 6191: whose engine uses a 4-tuple next, its clock is later."""
    p = net.server.popen([MPTCP_RUN, PYTHON, "-c", PRELUDE + AGAIN], stdout=subprocess.PIPE)
    try:
        assert p.stdout.readline() == "ready\n"
        with net.client.capture(expression="tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn and dst port 7320") as path:
            for _ in range(2):
                run(net, "PORT = 0" + ASK, "inside")
    finally:
        net.server.stop(p)
    told = net.client.run(["tcpdump", "-ttnr", path, "dst", FAR]).stdout
    at, ts = zip(*[(float(at), int(ts)) for at, ts in re.findall(r"^([\d.]+) .*TS val (\d+)", told, re.M)])
    assert len(ts) >= 2
    later = (ts[-1] - ts[0]) % 2**32
    assert abs(later - 1000 * (at[-1] - at[0])) < 50
    uptime = int(1000 * time.monotonic())
    assert min((ts[-1] - uptime) % 2**32, (uptime - ts[-1]) % 2**32) > 60_000


# ---- whole programs

PROGRAMS = {
    "curl": "curl -s URL | sha256sum",
    "curl, 20 at once": "curl -s --parallel --parallel-max 20 -o 'OUT/p#1' 'URL?[1-20]' 2>OUT/log && cat OUT/p* | sha256sum",
    "wget": "wget -q -O - URL | sha256sum",
    "perl": r"""perl -MIO::Socket::INET -e '$s=IO::Socket::INET->new("HOST:PORT"); print $s "GET /f HTTP/1.0\r\n\r\n"; $s->flush; local $/; $d=<$s>; $d=~s/^.*?\r\n\r\n//s; print $d' | sha256sum""",
    "bash": r"""bash -c 'exec 3<>/dev/tcp/HOST/PORT; printf "GET /f HTTP/1.0\r\n\r\n" >&3; cat <&3 | sed "1,/^\r$/d"' | sha256sum""",
    "node": r"""node -e 'require("http").get("URL", r => r.pipe(process.stdout))' | sha256sum""",
    "asyncio": r"""/usr/bin/python3 -c '
import asyncio, sys
async def one():
    r, w = await asyncio.open_connection("HOST", PORT); w.write(b"GET /f HTTP/1.0\r\n\r\n")
    return (await r.read(-1)).split(b"\r\n\r\n", 1)[1]
async def main(): sys.stdout.buffer.write(b"".join(await asyncio.gather(*[one() for i in range(5)])))
asyncio.run(main())' | sha256sum""",
}


@pytest.fixture(scope="module")
def web(net):
    """Python's own server, once on kernel MPTCP, once under the shim: the two ports."""
    (net.dir / "f").write_bytes(os.urandom(3_000_000))
    servers = [net.server.popen([*wrap, PYTHON, "-m", "http.server", "-b", "0.0.0.0", "-d", net.dir, port], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
               for wrap, port in ((["mptcpize", "run"], "7401"), ([MPTCP_RUN], "7402"))]
    for port in (7401, 7402):
        for _ in range(100):
            if net.client.run(["curl", "-sf", "-o", "/dev/null", f"http://{FAR}:{port}/kept"], check=False).returncode in (0, 22):
                break
            time.sleep(0.05)
    yield 7401, 7402
    for s in servers:
        net.server.stop(s)


@pytest.mark.parametrize("side", [0, 1], ids=["kernel server", "shim server"])
@pytest.mark.parametrize("program", [pytest.param(p, marks=pytest.mark.needs(p)) if p in ("wget", "node", "perl") else p for p in PROGRAMS])
def test_program(net, web, tmp_path, program, side):
    command = PROGRAMS[program].replace("URL", "http://HOST:PORT/f").replace("HOST", FAR).replace("PORT", str(web[side])).replace("OUT", str(tmp_path))
    sums = {}
    for engine in (None, *HOSTS):
        wrap = f"{MPTCP_RUN} --engine={engine} " if engine else ""
        sums[engine] = net.client.run(["bash", "-c", wrap + command], timeout=60).stdout.split()[0]
    copies = 20 if "20" in program else 5 if program == "asyncio" else 1
    expected = hashlib.sha256((net.dir / "f").read_bytes() * copies).hexdigest()
    assert sums == dict.fromkeys((None, *HOSTS), expected)


@pytest.mark.needs("git")
def test_git_clone_and_push(net, tmp_path):
    git = ["env", f"HOME={tmp_path}", "git", "-c", "safe.directory=*", "-c", "user.name=n", "-c", "user.email=e@e"]

    def sh(*args, **options):
        subprocess.run([*git, *map(str, args)], check=True, capture_output=True, **options)

    sh("init", "-q", "--bare", tmp_path / "r.git")
    sh("init", "-q", tmp_path / "w")
    (tmp_path / "w" / "big").write_bytes(os.urandom(2_000_000))
    sh("add", "big", cwd=tmp_path / "w")
    sh("commit", "-qm", "x", cwd=tmp_path / "w")
    env = {"HOME": tmp_path, "GIT_CONFIG_COUNT": 1, "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    daemon = net.server.popen([MPTCP_RUN, "git", "daemon", "--reuseaddr", f"--base-path={tmp_path}", "--export-all", "--enable=receive-pack"], env=env, stderr=subprocess.DEVNULL)
    try:
        assert net.server.wait_listening(9418)
        url = f"git://{FAR}/r.git"
        net.client.run([MPTCP_RUN, "git", "-C", tmp_path / "w", "push", "-q", url, "HEAD:master"], env=env)
        net.client.run([MPTCP_RUN, "git", "clone", "-q", "-b", "master", url, tmp_path / "c"], env=env)
        assert (tmp_path / "c" / "big").read_bytes() == (tmp_path / "w" / "big").read_bytes()
    finally:
        net.server.stop(daemon)


@pytest.mark.needs("nginx")
@pytest.mark.parametrize("workers", [1, 3])
def test_nginx(net, workers):
    (net.dir / "f").write_bytes(os.urandom(3_000_000))
    server = net.server.spawn_nginx(net.dir, mptcp=False, wrap=[MPTCP_RUN], workers=workers, port=7410 + workers)
    for wrap in ([], ["mptcpize", "run"], [MPTCP_RUN]):
        net.client.run([*wrap, "curl", "-sS", "-o", net.dir / "got", server.url("f")])
        assert (net.dir / "got").read_bytes() == (net.dir / "f").read_bytes()
    net.client.run([MPTCP_RUN, "curl", "-sS", "-T", net.dir / "f", server.url("put")])
    assert (net.dir / "put").read_bytes() == (net.dir / "f").read_bytes()


@pytest.mark.needs("iperf3")
def test_iperf3_both_ways(net):
    server = net.server.popen([MPTCP_RUN, "iperf3", "-s"], stdout=subprocess.DEVNULL)
    assert net.server.wait_listening(5201)
    for extra in ([], ["-R"], ["--bidir", "-P", "3"], ["-6", "-c", FAR6]):
        out = net.client.run([MPTCP_RUN, "iperf3", "-c", FAR, "-n", "50M", *extra]).stdout
        assert "iperf Done" in out
    net.server.stop(server)


def test_reuseport_group(net):
    code = """
import os, socket, time
def listener():
    l = socket.socket(); l.setsockopt(1, 15, 1); l.setsockopt(1, 2, 1); l.bind(("0.0.0.0", 7420)); l.listen(64); return l
kids = []
for k in range(3):
    pid = os.fork()
    if not pid:
        l = listener(); os.write(1, b"ready\\n")
        while True:
            s, a = l.accept(); s.sendall(b"%d %s" % (k, a[0].encode())); s.close()
    kids.append(pid)
time.sleep(15)
"""
    p = net.server.popen([MPTCP_RUN, PYTHON, "-c", code], stdout=subprocess.PIPE)
    try:
        assert [p.stdout.readline() for _ in range(3)] == ["ready\n"] * 3
        out = run(net, "seen=set()\nfor i in range(40):\n s=socket.create_connection((FAR,7420),5); k,a=s.recv(99).split(); seen.add(k); assert a==b'10.10.1.2', a\nprint(len(seen))")
        assert int(out) >= 2
    finally:
        net.server.stop(p)
