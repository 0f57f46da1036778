"""How programs end, fork, exec, give up their rights and take odd descriptors, under mptcp-run: each as without it."""

import contextlib
import errno
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import lab as lab_package
from lab.netns import processes
from lab.shim import MPTCP_RUN, ROOT, CurlRun, Watch, curl, engines, keepers, shim

PYTHON = "/usr/bin/python3"
FAR = "10.10.1.1"
ECHO, COUNT, RESET, KEEP, NAME = range(7001, 7006)
BLOCK = b"0123456789abcdef"
PRELUDE = f"""import ctypes,os,signal,socket,subprocess,sys,time
FAR,ECHO,COUNT,KEEP,BLOCK="{FAR}",{ECHO},{COUNT},{KEEP},{BLOCK}
libc=ctypes.CDLL(None,use_errno=True)
def dial(port): return socket.create_connection((FAR,port),10)
def echo(s,text):
    s.sendall(text); got=b""
    while len(got)<len(text): got+=s.recv(65536) or sys.exit("end of data")
    assert got==text; return True
"""


def far_end(net, directory):
    """tests/shim/far.py on the server."""
    net.dir = directory
    far = net.server.popen([PYTHON, ROOT / "tests/shim/far.py", directory], stdout=subprocess.PIPE)
    assert far.stdout.readline() == "ready\n"
    return net


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """Two plain links, for all tests that do not end helpers."""
    if os.geteuid():
        pytest.skip("needs root, to make network namespaces")
    with lab_package.two_path(direct=True) as made:
        yield far_end(made, tmp_path_factory.mktemp("far"))


@pytest.fixture
def slow(lab, tmp_path):
    """Two paths of 20 Mbit/s: what is written at once is under way for a while."""
    return far_end(lab.two_path(families="v4", rate="20M", delay="5ms"), tmp_path)


@pytest.fixture
def slower(lab, tmp_path):
    """Two paths of 5 Mbit/s: what a connection holds is under way for most of a second, however late this machine is."""
    return far_end(lab.two_path(families="v4", rate="5M", delay="5ms"), tmp_path)


def wait_for(what, timeout=10):
    end = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def run(net, code, *options, wrap=(), env=None, timeout=30, check=True):
    done = net.client.run([*wrap, *shim(*options), PYTHON, "-c", PRELUDE + code], env=env, timeout=timeout, check=False)
    assert not check or done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return done.stdout


def same(net, code, *options, **more):
    """What the program prints, bare and under mptcp-run; once, when both agree."""
    bare = net.client.run([PYTHON, "-c", PRELUDE + code], check=False)
    assert bare.returncode == 0, bare.stderr
    assert run(net, code, *options, **more) == bare.stdout
    return bare.stdout


def kept(net, size, timeout=20):
    """The far end has got so many bytes of BLOCK, again and again, and the end of data."""
    file = net.dir / "kept"
    wait_for(file.exists, timeout)
    text = file.read_text()
    file.unlink()
    return text == f"{size} {hashlib.sha256(BLOCK * (size // 16)).hexdigest()}"


# -- the end of a program whose engine is inside

ENDS = {"exit": "sys.exit(0)", "_exit": "os._exit(0)", "quick_exit": "libc.quick_exit(0)", "exec": "os.execv('/bin/true', ['true'])",
        "close": "s.close(); os._exit(0)"}


@pytest.mark.parametrize("end", ENDS)
def test_what_was_written_arrives_after_the_end(slower, end):
    """2.5 MB for two paths of 5 Mbit/s each; the program ends at once."""
    with Watch(slower) as seen:
        run(slower, f"s = dial(KEEP); s.sendall(BLOCK * 156250); {ENDS[end]}")
        assert not (slower.dir / "kept").exists()
        assert kept(slower, 2_500_000)
    assert (seen.resets(slower.client), seen.resets(slower.server)) == (0, 0)
    assert not seen.bad(slower.server)
    for device in "eth0", "eth1":
        assert seen.moved(slower.client, device) > 500_000


@pytest.mark.timing
def test_the_end_takes_no_time(slow):
    """Measured from the last write's return to the reaping: 12 to 30 ms, the helper's start included."""
    code = "s = dial(KEEP); s.sendall(BLOCK * 625000); print(time.monotonic(), flush=True); os._exit(0)"
    p = slow.client.popen([*shim(), PYTHON, "-c", PRELUDE + code], stdout=subprocess.PIPE)
    p.wait()
    took = time.monotonic() - float(p.stdout.read())
    assert kept(slow, 10_000_000)
    assert took < 0.3


def test_nobody_waits_for_what_is_under_way(slower):
    """No pipe of the program is held open, no child is left, no signal comes."""
    code = f"""
seen = []
signal.signal(signal.SIGCHLD, lambda *a: seen.append(1))
inner = '''import os, socket
s = socket.create_connection(("{FAR}", {KEEP})); s.sendall({BLOCK} * 156250); os._exit(3)'''
a = time.monotonic(); done = subprocess.run([sys.executable, "-c", inner], capture_output=True); b = time.monotonic()
print(done.returncode, done.stdout, done.stderr, len(seen))
try: os.wait()
except ChildProcessError: print("no child")
"""
    assert run(slower, code) == "3 b'' b'' 1\nno child\n"
    assert not (slower.dir / "kept").exists()          # it is still under way
    assert kept(slower, 2_500_000)


def test_the_helper_is_only_started_where_it_is_needed(net):
    """A program whose data has all arrived, and whose peer has ended too, ends as before."""
    run(net, "s = dial(COUNT); s.sendall(b'x' * 1000); s.shutdown(1); assert s.recv(10) == b'1000'; assert not s.recv(10); s.close()",
        f"--control={net.dir}/never")
    assert not (net.dir / "never").exists()


def test_without_a_helper_the_end_waits(slow, tmp_path):
    """A broken installation: mpshim-engine is missing."""
    for name in "mptcp-run", "libmpshim.so", "libmpshim-engine.so":
        (tmp_path / name).write_bytes((MPTCP_RUN.resolve().parent / name).read_bytes())
        (tmp_path / name).chmod(0o755)
    slow.client.run([tmp_path / "mptcp-run", PYTHON, "-c", PRELUDE + "s = dial(KEEP); s.sendall(BLOCK * 125000); os._exit(0)"])
    for link in slow.link:
        link.blackhole()                               # nothing needs to be sent any more
    assert kept(slow, 2_000_000)


# -- what other processes hold lives on

HOLDERS = {
    "child": "if os.fork(): os._exit(0)",
    "daemon": "if os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)",
    "exit": "if os.fork(): sys.exit(0)",
}


@pytest.mark.parametrize("how", HOLDERS)
def test_a_child_goes_on_with_its_parents_connection(net, how):
    """As ssh -f does: connect, speak, go to the background, speak on."""
    code = f"""
s = dial(ECHO); echo(s, b"before")
{HOLDERS[how]}
time.sleep(0.3)
echo(s, b"after" * 100000); t = dial(ECHO); echo(t, b"another")
open({str(net.dir / "said")!r}, "w").write(f"{{s.getpeername()}} {{s.getsockname()[0]}} {{t.getpeername()}}"); os.rename({str(net.dir / "said")!r}, {str(net.dir / "done")!r})
"""
    run(net, code)
    wait_for((net.dir / "done").exists)
    said = (net.dir / "done").read_text()
    (net.dir / "done").unlink()
    assert said == f"('{FAR}', {ECHO}) 10.10.1.2 ('{FAR}', {ECHO})"


def test_a_child_reads_on_what_comes_meanwhile(slow):
    """A download is in full flow in both directions while its engine moves."""
    code = f"""
import hashlib, threading
s = dial(ECHO)
if os.fork():
    time.sleep(1); os._exit(0)
threading.Thread(target=lambda: (s.sendall(BLOCK * 500000), s.shutdown(1))).start()
h, n = hashlib.sha256(), 0
while data := s.recv(1 << 16): h.update(data); n += len(data)
open({str(slow.dir / "got.new")!r}, "w").write(f"{{n}} {{h.hexdigest()}}"); os.rename({str(slow.dir / "got.new")!r}, {str(slow.dir / "got")!r})
"""
    with Watch(slow) as seen:
        run(slow, code)
        wait_for((slow.dir / "got").exists, 30)
    assert (slow.dir / "got").read_text() == f"8000000 {hashlib.sha256(BLOCK * 500000).hexdigest()}"
    assert (seen.resets(slow.client), seen.resets(slow.server)) == (0, 0)
    assert not seen.bad(slow.server)


def test_many_connections_move_at_once(net):
    code = """
socks = [dial(ECHO) for i in range(300)]
if os.fork(): os._exit(0)
time.sleep(0.3)
ok = sum(echo(s, b"%d" % i) for i, s in enumerate(socks))
open(DONE + ".new", "w").write(str(ok)); os.rename(DONE + ".new", DONE)
""".replace("DONE", repr(str(net.dir / "many")))
    run(net, code, "--interfaces=eth0", timeout=60)
    wait_for((net.dir / "many").exists, 30)
    assert (net.dir / "many").read_text() == "300"


def test_a_connection_passes_through_exec(net):
    code = """
s = dial(ECHO); echo(s, b"before"); s.set_inheritable(True); s.setblocking(True)
os.execv(sys.executable, [sys.executable, "-c", '''
import socket, sys
s = socket.socket(fileno=int(sys.argv[1])); s.sendall(b"after")
print(s.recv(9), s.getpeername(), s.getsockname()[0])
t = socket.create_connection(s.getpeername(), 10); t.sendall(b"new"); print(t.recv(9))
''', str(s.fileno())])
"""
    assert same(net, code) == f"b'after' ('{FAR}', {ECHO}) 10.10.1.2\nb'new'\n"


def test_a_stranger_still_learns_whose_connection_it_got(net):
    """It has other settings, so another helper than the one that the connection moved to: it asks by the identity's name."""
    code = """
s = dial(ECHO); s.setblocking(True); s.set_inheritable(True)
if os.fork(): os._exit(0)
time.sleep(0.3)
out = subprocess.run([sys.executable, "-c", "import socket, sys; s = socket.socket(fileno=int(sys.argv[1])); print(s.getpeername())", str(s.fileno())],
                     pass_fds=[s.fileno()], env={**os.environ, "MPSHIM_CC": "reno"}, capture_output=True, text=True).stdout
open(DONE + ".new", "w").write(out); os.rename(DONE + ".new", DONE)
""".replace("DONE", repr(str(net.dir / "stranger")))
    run(net, code)
    wait_for((net.dir / "stranger").exists)
    assert (net.dir / "stranger").read_text() == f"('{FAR}', {ECHO})\n"


@pytest.mark.parametrize("reader", ["cat <&3", "exec cat <&3"])
def test_a_shell_and_its_reader(slow, reader):
    """bash connects and asks; cat reads, as its child or in its place, while the data is coming."""
    file = lab_package.make_file(3_000_000)
    server = slow.server.spawn_http(file.root)
    script = f"""exec 3<>/dev/tcp/{FAR}/{server.port}; printf 'GET /{file.name} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n' >&3; sleep 0.1; {reader}"""
    slow.client.run([*shim(), "bash", "-c", f"({script}) > {slow.dir}/got"], timeout=30)
    body = (slow.dir / "got").read_bytes().split(b"\r\n\r\n", 1)[1]
    assert (len(body), hashlib.sha256(body).hexdigest()) == (3_000_000, file.sha256)


def test_an_exec_that_fails_changes_nothing(net):
    """The engine has moved by then; old and new connections go on."""
    code = """
s = dial(ECHO); echo(s, b"before")
for i in range(2):
    try: os.execv("/no/such/program", ["x"])
    except FileNotFoundError: print("still here")
print(echo(s, b"after"), s.getpeername(), echo(dial(ECHO), b"new"))
u = dial(KEEP); u.sendall(BLOCK * 62500); os._exit(0)
"""
    assert run(net, code) == f"still here\nstill here\nTrue ('{FAR}', {ECHO}) True\n"
    assert kept(net, 1_000_000)


def test_a_connect_under_way_moves(lab, tmp_path):
    """SYN_SENT on a path of 300 ms: the parent ends before the answer comes."""
    net = far_end(lab.two_path(families="v4", rate="20M", delay="150ms"), tmp_path)
    code = """
import select
s = socket.socket(); s.setblocking(False); s.connect_ex((FAR, ECHO))
r = socket.socket(); r.setblocking(False); r.connect_ex((FAR, 4))
if os.fork(): os._exit(0)
p = select.poll(); p.register(s, select.POLLOUT); p.poll(5000); s.setblocking(True); echo(s, b"up")
p = select.poll(); p.register(r, select.POLLOUT); p.poll(5000)
open(DONE + ".new", "w").write(f"up {r.getsockopt(1, 4)}"); os.rename(DONE + ".new", DONE)
""".replace("DONE", repr(str(tmp_path / "up")))
    run(net, code)
    wait_for((tmp_path / "up").exists)
    assert (tmp_path / "up").read_text() == "up 111"   # ECONNREFUSED


# -- the helper ends: its listeners are never deaf

SERVER = """
l = socket.socket(socket.AF_INET6 if ":" in AT else socket.AF_INET); l.setsockopt(1, 2, 1); l.bind((AT, 7600)); l.listen(16)
print("ready", flush=True)
while True:
    s, a = l.accept()
    try:
        while data := s.recv(1000): s.sendall(a[0].encode() + b" " + data)
    except OSError: pass
    s.close()
"""


def serve(net, at, *options, code=SERVER):
    p = net.server.popen([*shim("-v", *options), PYTHON, "-c", PRELUDE + f"AT = {at!r}\n" + code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert p.stdout.readline() == "ready\n", p.stderr.read()
    return p


def call(net, host, text, wrap=("mptcpize", "run"), timeout=1):
    """What the server at `host` answers; it must do so at once."""
    code = f"s = socket.create_connection(({host!r}, 7600), {timeout}); s.sendall({text!r}); print(s.recv(1000).decode())"
    done = net.client.run([*wrap, PYTHON, "-c", PRELUDE + code], check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def kill_helpers(host):
    found = engines(host)
    assert found
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not set(engines(host)) & set(found))




@pytest.mark.needs("mptcpize")
@pytest.mark.parametrize("at, to, said", [("0.0.0.0", FAR, "10.10.1.2"), ("::", FAR, "::ffff:10.10.1.2"), ("::", "fd00:10:1::1", "fd00:10:1::2"), (FAR, FAR, "10.10.1.2")])
def test_a_server_without_connections_is_served_when_its_helper_dies(net, at, to, said):
    """By the kernel at once, and by another helper from the next connection on."""
    p = serve(net, at)
    try:
        assert call(net, to, b"one") == f"{said} one"
        kill_helpers(net.server)
        assert call(net, to, b"two") == f"{said} two"
        with Watch(net) as seen:
            assert call(net, to, b"three") == f"{said} three"
        assert len(engines(net.server)) == 1 and seen.mptcp(net.client, "MPCapableSYNACKRX") == 1
    finally:
        net.server.stop(p)
    assert p.stderr.read().count("(helper)") == 2


EXECS = """
l = socket.create_server((AT, 7600)); l.set_inheritable(True)
os.execv(sys.executable, [sys.executable, "-c", f"import os, socket\\nl = socket.socket(fileno={l.fileno()})\\n" + SERVES])
""".replace("SERVES", repr(SERVER.partition("l.listen(16)")[2]))


@pytest.mark.needs("mptcpize")
@pytest.mark.parametrize("options", [[], ["--strict"]], ids=["guard", "strict"])
def test_a_listener_inherited_through_exec_is_served_when_its_helper_dies(net, options):
    """Once the program has accepted a connection from it. With --strict the helper's keeper dies at the same moment."""
    p = serve(net, "0.0.0.0", *options, code=EXECS)
    try:
        assert call(net, FAR, b"one") == "10.10.1.2 one"
        if options:
            wait_for(lambda: keepers(net.server))
        for pid in keepers(net.server):
            os.kill(pid, signal.SIGKILL)
        kill_helpers(net.server)
        if options:
            wait_for(lambda: engines(net.server))
            time.sleep(1)
        else:
            assert call(net, FAR, b"two") == "10.10.1.2 two"
        with Watch(net) as seen:
            assert call(net, FAR, b"three") == "10.10.1.2 three"
        assert len(engines(net.server)) == 1 and seen.mptcp(net.client, "MPCapableSYNACKRX") == 1
    finally:
        net.server.stop(p)


def test_a_listener_whose_last_holder_is_killed_refuses_at_once(net):
    """A child holds it, whose end nobody tells: the far end is refused, not accepted and reset."""
    code = """
l = socket.create_server((AT, 7600)); child = os.fork()
if child == 0: time.sleep(60); os._exit(0)
l.close(); print(child, flush=True); input()
os.kill(child, signal.SIGKILL); os.waitpid(child, 0); print("gone", flush=True); input()
"""
    p = net.server.popen([*shim(), PYTHON, "-c", PRELUDE + "AT = '0.0.0.0'" + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert p.stdout.readline().strip().isdigit()
        with net.client.inside():
            one, two = socket.socket(), socket.socket()
        one.settimeout(5)
        one.connect((FAR, 7600))                       # the child's listener takes it
        two.settimeout(5)
        time.sleep(1.2)                                # the engine has looked, and will not look again for a while
        p.stdin.write("\n")
        p.stdin.flush()
        assert p.stdout.readline() == "gone\n"
        assert two.connect_ex((FAR, 7600)) == errno.ECONNREFUSED
    finally:
        net.server.stop(p)


def test_a_port_that_is_taken_says_so(net, tmp_path):
    """Whatever the question to a helper, which is not there, came to."""
    same(net, """
l = socket.create_server(("0.0.0.0", 7603)); m = socket.socket()
try: m.bind(("0.0.0.0", 7603))
except OSError as e: print(e.errno)
""", env={"MPSHIM_CONTROL": str(tmp_path / "none" / "ctl"), "MPSHIM_ENGINE": "inside"})


def test_a_listener_looks_as_the_program_made_it(net):
    """Its group with the engine's guard is ours: a second listener of the same port is refused as ever, local clients come in."""
    same(net, """
for own in 0, 1:
    l = socket.socket(); l.setsockopt(1, 15, own); l.bind(("0.0.0.0", 7601)); l.listen(8); print(l.getsockopt(1, 15))
    for other in (0, 1)[:own + 1]:
        m = socket.socket(); m.setsockopt(1, 2, 1); m.setsockopt(1, 15, other)
        try: m.bind(("0.0.0.0", 7601)); print("bound")
        except OSError as e: print(e.errno)
        m.close()
    for near in "127.0.0.1", "10.10.1.2":
        s = socket.create_connection((near, 7601), 5); a, who = l.accept(); a.sendall(b"x"); print(s.recv(1), who[0] == s.getsockname()[0])
    l.close(); s.close(); a.close()
""")


GROUP = SERVER.replace("l.bind", "l.setsockopt(1, 15, 1); l.bind")


@pytest.mark.needs("mptcpize")
@pytest.mark.parametrize("options, code", [(["--strict"], SERVER), ([], GROUP)], ids=["strict", "reuseport"])
def test_a_listener_that_takes_no_plain_tcp_is_served_when_its_helper_dies(net, options, code):
    """Its program sleeps in accept() and does nothing: the helper's keeper starts another one, and is there for that one too."""
    p = serve(net, "0.0.0.0", *options, code=code)
    try:
        assert call(net, FAR, b"one") == "10.10.1.2 one"
        wait_for(lambda: keepers(net.server))
        for text in b"two", b"three":
            kill_helpers(net.server)
            wait_for(lambda: engines(net.server))
            time.sleep(1)                              # nobody speaks to the server meanwhile
            with Watch(net) as seen:
                assert call(net, FAR, text) == f"10.10.1.2 {text.decode()}"
            assert seen.mptcp(net.client, "MPCapableSYNACKRX") == 1 and len(engines(net.server)) == len(keepers(net.server)) == 1
        (keeper,) = keepers(net.server)
        os.kill(keeper, signal.SIGKILL)
        wait_for(lambda: keepers(net.server) not in ([], [keeper]))
    finally:
        net.server.stop(p)
    wait_for(lambda: not keepers(net.server), 20)      # with the helper, which is idle


@pytest.mark.needs("mptcpize")
def test_a_keeper_tells_of_a_listener_with_its_mark(net):
    """A program that restricts itself has no thread of ours: only the keeper starts another helper."""
    code = GROUP.replace("l.bind", "l.setsockopt(1, 36, 9); l.bind").replace('print("ready"', 'libc.prctl(38, 1, 0, 0, 0); print("ready"')
    p = serve(net, "0.0.0.0", code=code)
    try:
        wait_for(lambda: keepers(net.server))
        kill_helpers(net.server)
        wait_for(lambda: engines(net.server))
        time.sleep(1)
        net.server.nft("table inet seen { chain o { type filter hook output priority 0; tcp sport 7600 tcp flags & rst == 0 jump told; }; chain told { meta mark 9 counter return; counter; }; }")
        with Watch(net) as seen:
            assert call(net, FAR, b"one") == "10.10.1.2 one"
        assert seen.mptcp(net.client, "MPCapableSYNACKRX") == 1
        marked, unmarked = (int(line.split("packets ")[1].split()[0]) for line in net.server.run(["nft", "list", "chain", "inet", "seen", "told"]).stdout.splitlines() if "packets" in line)
        assert marked >= 3 and unmarked == 0
    finally:
        net.server.run(["nft", "delete", "table", "inet", "seen"], check=False)
        net.server.stop(p)


DAEMON = """
l = socket.create_server((AT, 7600)); 
if os.fork(): os._exit(0)
print("ready", flush=True)
""" + SERVER.partition("flush=True)")[2]


@pytest.mark.needs("mptcpize")
@pytest.mark.parametrize("options, code", [(["--strict"], SERVER), ([], GROUP), (["--strict"], DAEMON)], ids=["strict", "reuseport", "daemon"])
def test_a_listener_that_takes_no_plain_tcp_is_served_when_helper_and_keeper_die_at_once(net, options, code):
    """Nobody is left but its program, which sleeps in accept()."""
    p = serve(net, "0.0.0.0", *options, code=code)
    try:
        for text in b"one", b"two":
            wait_for(lambda: keepers(net.server))
            for pid in keepers(net.server):
                os.kill(pid, signal.SIGKILL)           # first: it has no time to start another helper
            kill_helpers(net.server)
            wait_for(lambda: engines(net.server))
            time.sleep(1)
            with Watch(net) as seen:
                assert call(net, FAR, text) == f"10.10.1.2 {text.decode()}"
            assert seen.mptcp(net.client, "MPCapableSYNACKRX") == 1 and len(engines(net.server)) == 1
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(p.pid, signal.SIGKILL)           # the daemon too
        net.server.stop(p)


BECOMES = {"daemon": "libc.daemon(1, 1)", "setsid": "os.fork() and os._exit(0); os.setsid()",
           "twice": "os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0); os.dup2(os.open('/dev/null', os.O_RDWR), 0)"}


@pytest.mark.needs("mptcpize")
@pytest.mark.parametrize("way", BECOMES)
def test_a_daemon_that_has_accepted_nothing_yet_is_served_when_helper_and_keeper_die_at_once(net, way):
    """It sleeps in poll(), and its parent, which called listen(), has ended."""
    code = f"""
import select
l = socket.create_server((AT, 7600)); {BECOMES[way]}
print("ready", flush=True); p = select.poll(); p.register(l, select.POLLIN)
while p.poll(): c, who = l.accept(); c.sendall(f"{{who[0]}} {{c.recv(100).decode()}}".encode()); c.close()
"""
    p = serve(net, "0.0.0.0", "--strict", code=code)
    try:
        p.wait(10)
        wait_for(lambda: keepers(net.server))
        for pid in keepers(net.server):
            os.kill(pid, signal.SIGKILL)
        kill_helpers(net.server)
        wait_for(lambda: engines(net.server))
        time.sleep(1)
        assert call(net, FAR, b"one") == "10.10.1.2 one"
    finally:
        for pid in processes(net.server.ns):
            if f"AT = '0.0.0.0'\n{code}" in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, signal.SIGKILL)


@pytest.mark.needs("mptcpize")
def test_a_server_without_rights_is_the_kernels_when_helper_and_keeper_die_at_once(net):
    """The thread that sees it has no more rights than the program, which can start no helper: rather plain TCP than deaf."""
    p = serve(net, "0.0.0.0", code=GROUP.replace('print("ready"', 'os.setgid(65534); os.setuid(65534); print("ready"'))
    try:
        wait_for(lambda: keepers(net.server))
        for pid in keepers(net.server):
            os.kill(pid, signal.SIGKILL)
        kill_helpers(net.server)
        time.sleep(1)
        assert call(net, FAR, b"plain") == "10.10.1.2 plain" and not engines(net.server)
    finally:
        net.server.stop(p)
    assert "kernel TCP: no privilege" in p.stderr.read()


def test_a_strict_listener_waits_for_a_helper_that_cannot_start(net, tmp_path):
    """It is deaf as long as none can be had, and served as soon as one can."""
    control = tmp_path / "gone" / "ctl"
    control.parent.mkdir(mode=0o700)
    p = net.server.popen([*shim("-v", "--strict", "--engine=helper"), PYTHON, "-c", PRELUDE + "AT = '0.0.0.0'" + SERVER], env={"MPSHIM_CONTROL": str(control)},
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert p.stdout.readline() == "ready\n", p.stderr.read()
        wait_for(lambda: keepers(net.server))
        control.parent.rename(tmp_path / "away")
        control.parent.write_text("in the way")
        for pid in keepers(net.server):
            os.kill(pid, signal.SIGKILL)
        kill_helpers(net.server)
        time.sleep(0.5)
        assert not engines(net.server)
        control.parent.unlink()
        (tmp_path / "away").rename(control.parent)
        wait_for(lambda: engines(net.server))
        assert call(net, FAR, b"again", timeout=3) == "10.10.1.2 again"
    finally:
        net.server.stop(p)
    assert p.stderr.read().count("refused (strict)") == 1


def test_who_watches_a_listener_is_no_thread_in_the_way(net):
    """A server whose listener is watched by a thread of ours may still do what only a process with one thread may."""
    same(net, """
import ctypes
l = socket.socket(); l.setsockopt(1, 15, 1); l.bind(("0.0.0.0", 7602)); l.listen(8)
if os.fork() == 0: os._exit(len(os.listdir("/proc/self/task")) - 1)
print(os.wait()[1])
print(libc.setns(os.open("/proc/self/ns/mnt", os.O_RDONLY), 0))
print(libc.unshare(0x10000000), len(os.listdir("/proc/self/task")))
""")


# -- socket activation: the listener is there before the program

ACTIVATOR = """
import os, select, socket, sys
l = socket.create_server((sys.argv[1], 7600), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, dualstack_ipv6=":" in sys.argv[1])
os.dup2(l.fileno(), 3); os.set_inheritable(3, True)
print("waits", flush=True)
while select.select([3], [], []):
    if os.fork() == 0:
        os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
        os.execvp(sys.argv[2], sys.argv[2:])
    print("ended", os.wait()[1], flush=True)
"""
ACTIVATED = """
import select
l = socket.socket(fileno=3); print("begins", l.getsockopt(1, 15), flush=True)
for i in 0, 1:
    select.select([l], [], [])
    s, a = l.accept(); s.sendall(a[0].encode() + b" " + s.recv(1000)); s.close()
"""


def activator(net, at, wrap):
    """Who waits on a listener, starts the program under `wrap` for two connections, and waits again, as systemd does."""
    p = net.server.popen([PYTHON, "-c", ACTIVATOR, at, *wrap, PYTHON, "-c", PRELUDE + ACTIVATED], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert p.stdout.readline() == "waits\n", p.stderr.read()
    return p


def call_twice(net, p, to, wrap=("mptcpize", "run")):
    """The first one was there before the program. What they got, what the program saw, and the SYN/ACKs with MPTCP."""
    with Watch(net) as seen:
        got = [call(net, to, text, wrap=wrap, timeout=20) for text in (b"one", b"two")]
        said = [p.stdout.readline() for _ in range(2)]
    return got, said, seen.mptcp(net.client, "MPCapableSYNACKRX")


def end(net, p):
    net.server.stop(p)
    for pid in processes(net.server.ns):
        with contextlib.suppress(OSError):
            if ACTIVATED in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, signal.SIGKILL)


@pytest.mark.needs("mptcpize")
@pytest.mark.parametrize("at, to, said", [("0.0.0.0", FAR, "10.10.1.2"), ("::", FAR, "::ffff:10.10.1.2"), ("::", "fd00:10:1::1", "fd00:10:1::2"), (FAR, FAR, "10.10.1.2")])
def test_socket_activation(net, at, to, said):
    """The kernel serves the connection that starts the program, the engine those that come while it runs."""
    expected = [f"{said} one", f"{said} two"], ["begins 0\n", "ended 0\n"]
    for wrap in [], shim("-v"):
        p = activator(net, at, wrap)
        try:
            for _ in range(3):
                got, told, mptcp = call_twice(net, p, to)
                assert (got, told) == expected
                assert mptcp == 0 if not wrap else mptcp >= 1
                if wrap:                               # a service's helper ends with it, in one cgroup
                    for pid in keepers(net.server):
                        os.kill(pid, signal.SIGKILL)
                    kill_helpers(net.server)
        finally:
            end(net, p)


@pytest.mark.needs("mptcpize")
def test_socket_activation_with_the_engine_inside(net):
    """It ends with the program, the listener does not: the kernel serves."""
    p = activator(net, "0.0.0.0", shim("-v", "--engine=inside"))
    try:
        for _ in range(2):
            assert call_twice(net, p, FAR) == (["10.10.1.2 one", "10.10.1.2 two"], ["begins 0\n", "ended 0\n"], 0)
    finally:
        end(net, p)
    assert "kernel TCP: it outlives this process" in p.stderr.read()


@pytest.mark.needs("mptcpize", "setpriv")
def test_socket_activation_by_another_user(net):
    """No guard of this user's can stand beside a socket of root's, and a filter would stay on it: the kernel serves."""
    user = ["setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=+net_raw,+net_admin", "--ambient-caps=+net_raw,+net_admin"]
    p = activator(net, "0.0.0.0", [*user, *shim("-v")])
    try:
        for _ in range(2):
            assert call_twice(net, p, FAR) == (["10.10.1.2 one", "10.10.1.2 two"], ["begins 0\n", "ended 0\n"], 0)
    finally:
        end(net, p)
    assert "kernel TCP: its port cannot be guarded" in p.stderr.read()


@pytest.mark.needs("mptcpize")
def test_socket_activation_with_strict(net):
    """A client without MPTCP is turned away, once the program runs."""
    p = activator(net, "0.0.0.0", shim("-v", "--strict"))
    try:
        assert call(net, FAR, b"one", timeout=20) == "10.10.1.2 one"
        wait_for(lambda: engines(net.server))
        refused = net.client.run([PYTHON, "-c", PRELUDE + f"s = socket.create_connection(({FAR!r}, 7600), 10); s.sendall(b'x'); print(s.recv(10))"], check=False)
        assert "ConnectionRe" in refused.stderr, (refused.stdout, refused.stderr)
        with Watch(net) as seen:
            assert call(net, FAR, b"two", timeout=20) == "10.10.1.2 two"
        assert seen.mptcp(net.client, "MPCapableSYNACKRX") == 1
    finally:
        end(net, p)


def test_an_interface_that_comes_later_is_listened_on(lab, tmp_path):
    net = lab.two_path(direct=True)
    net.server.link_down(1)
    p = serve(net, "0.0.0.0")
    assert call(net, FAR, b"one") == "10.10.1.2 one"
    net.server.link_up(1)
    wait_for(lambda: "UP" in net.server.ip("-br", "link", "show", "eth1"))
    for i in range(3):
        with Watch(net) as seen:
            assert call(net, "10.10.2.1", b"two") == "10.10.2.2 two"
        assert not seen.resets(net.server)
    assert seen.mptcp(net.client, "MPCapableSYNACKRX") == 1
    net.server.stop(p)


# -- a new helper takes over from the old one

def replace_helper(host):
    """Starts a second mpshim-engine --replace; the first one is gone, the second serves."""
    (old,) = engines(host)
    host.run([MPTCP_RUN.resolve().parent / "mpshim-engine", "--replace"])
    wait_for(lambda: engines(host) and old not in engines(host))
    assert len(engines(host)) == 1
    wait_for(lambda: not Path(f"/proc/{old}").exists())


def test_a_new_helper_takes_over_live_connections(lab):
    """Client and server both have theirs replaced in mid-transfer, over two paths."""
    net = lab.two_path(families="v4", rate="20M", delay="5ms")
    file = lab_package.make_file(8_000_000)
    server = net.server.spawn_http(file.root, mptcp=False, wrap=shim(), congestion=None)
    with Watch(net) as seen:
        run_of_curl = CurlRun(net.client, server.url(file.name), wrap=shim("--engine=helper"))
        run_of_curl.wait_for(1_000_000)
        replace_helper(net.server)
        run_of_curl.wait_for(3_000_000)
        replace_helper(net.client)
        assert run_of_curl.result().sha256 == file.sha256
        assert curl(net.client, server.url(file.name), wrap=shim("--engine=helper")).sha256 == file.sha256
    assert (seen.resets(net.client), seen.resets(net.server)) == (0, 0)
    assert seen.moved(net.client, "eth1") > 2_000_000


@pytest.mark.timing
def test_a_new_helper_is_asked_where_the_old_one_has_answered(net, tmp_path):
    """The socket on which answers come belongs to one engine; whoever asks finds its end, and makes another with the next."""
    code = PRELUDE + """
import time
def three():
    begin = time.monotonic()
    for i in range(3):
        with dial(ECHO) as s: echo(s, b"x")
    return time.monotonic() - begin
three(); print("asked", flush=True)
for _ in range(2): input(); print(three() < 4, flush=True)
"""
    p = net.client.popen([*shim("-v", "--engine=helper", f"--control={tmp_path}/ctl"), PYTHON, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert p.stdout.readline() == "asked\n"
    for _ in range(2):
        net.client.run([MPTCP_RUN.resolve().parent / "mpshim-engine", "--replace", "--ctl", tmp_path / "ctl"])
        p.stdin.write("\n")
        p.stdin.flush()
        assert p.stdout.readline() == "True\n"  # no question waited its five seconds for an answer
    p.stdin.close()
    assert p.wait(20) == 0 and "kernel TCP" not in p.stderr.read()


def test_a_helper_of_another_build_takes_what_is_new(net, tmp_path):
    """What moves is plain data, and its layout is another one. A program's end waits instead; programs that run stay with the
    helper that they have, which gives its place away and ends after them."""
    objects = MPTCP_RUN.resolve().parent / "obj/libmpshim"
    if not (objects / "engine/move_in.o").exists() or "asan" in str(objects):
        pytest.skip("needs the plain build's objects")
    subprocess.run(["gcc", "-std=c17", "-D_GNU_SOURCE=", "-DMOVE_LAYOUT=7u", "-fvisibility=hidden", "-fPIC", "-pthread", "-I", ROOT / "libmpshim", "-c",
                    "-o", tmp_path / "move_in.o", ROOT / "libmpshim/engine/move_in.c"], check=True)
    sources = [c.relative_to(ROOT / "libmpshim") for d in ("core", "io", "engine") for c in (ROOT / "libmpshim" / d).rglob("*.c")]
    parts = [objects / c.with_suffix(".o") for c in sources if str(c) not in ("engine/helper_main.c", "engine/move_in.c")]
    libs = ["-lev", "-lmnl", "-ljansson", "-lcrypto", "-lm"]
    for made, extra in ("libmpshim-engine.so", ["-shared", "-Wl,-Bsymbolic"]), ("mpshim-engine", [objects / "engine/helper_main.o"]):
        subprocess.run(["gcc", "-pthread", "-o", tmp_path / made, *extra, *parts, tmp_path / "move_in.o", *libs], check=True)
    for name in "mptcp-run", "libmpshim.so":
        (tmp_path / name).write_bytes((MPTCP_RUN.resolve().parent / name).read_bytes())
        (tmp_path / name).chmod(0o755)
    control = f"--control={tmp_path}/ctl"
    holder = net.client.popen([*shim("--engine=helper", control), PYTHON, "-c", PRELUDE + "s = dial(ECHO); print('up', flush=True); input(); print(echo(s, b'x'))"],
                              env={"MPSHIM_TIME_WAIT_S": "1"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == "up\n"
    net.client.run([tmp_path / "mptcp-run", "--engine=inside", control, PYTHON, "-c", PRELUDE + "s = dial(KEEP); s.sendall(BLOCK * 625000); os._exit(0)"])
    assert kept(net, 10_000_000)
    def here():
        return {pid for pid in engines(net.client) if str(tmp_path / "ctl").encode() in Path(f"/proc/{pid}/cmdline").read_bytes()}
    (old,) = here()
    server = net.client.popen([*shim("--engine=helper", control), PYTHON, "-c", PRELUDE +
                               "l = socket.create_server(('0.0.0.0', 7605)); print('up', flush=True)\nwhile True: s, a = l.accept(); s.sendall(s.recv(9)); k = s"],
                              stdout=subprocess.PIPE)
    assert server.stdout.readline() == "up\n"
    to_server = f"s = socket.create_connection(('10.10.1.2', 7605), 5); echo(s, b'served'); print(s.getpeername()[1], flush=True)"
    with Watch(net) as seen:
        net.client.run([tmp_path / "mpshim-engine", "--replace", "--ctl", tmp_path / "ctl"])
        wait_for(lambda: len(here()) == 2)
        (new,) = here() - {old}
        assert run(net, "print(echo(dial(ECHO), b'new'))", "--engine=helper", control) == "True\n"
        far = net.server.popen([PYTHON, "-c", PRELUDE + to_server + "; time.sleep(60)"], stdout=subprocess.PIPE)
        assert far.stdout.readline() == "7605\n"
        holder.stdin.write("\n"), holder.stdin.flush()
        assert holder.communicate(timeout=10)[0] == "True\n"
    assert not seen.resets(net.server)
    net.client.stop(server)
    # The port is still guarded by the old one, whose connection lingers: a server that starts again asks the new one for it.
    again = net.client.popen([*shim("--engine=helper", control), PYTHON, "-c", PRELUDE +
                              "l = socket.socket(); l.setsockopt(1, 2, 1); l.bind(('0.0.0.0', 7605)); l.listen(); print('up', flush=True); s, a = l.accept(); s.sendall(s.recv(9))"],
                             stdout=subprocess.PIPE)
    assert again.stdout.readline() == "up\n"
    assert net.server.run([PYTHON, "-c", PRELUDE + to_server]).stdout == "7605\n"
    net.client.stop(again), net.server.stop(far)
    wait_for(lambda: here() == {new}, 20)
    assert (tmp_path / "ctl").exists()


# -- the helper is nobody's child and outlives whoever started it

def test_a_helper_outlives_its_starter(net):
    """Its session, process group, terminal, directory and descriptors are its own."""
    control = net.dir / "own"
    code = f"s = dial(ECHO); echo(s, b'x'); print(os.getpgrp(), os.getsid(0), flush=True); os.killpg(0, signal.SIGKILL)"
    p = net.client.popen([*shim("--engine=helper", f"--control={control}"), PYTHON, "-c", PRELUDE + code], stdout=subprocess.PIPE,
                         cwd=str(net.dir))
    group, session = map(int, p.communicate(timeout=20)[0].split())
    (helper,) = [pid for pid in engines(net.client) if str(control).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()]
    stat = Path(f"/proc/{helper}/stat").read_text().rsplit(")", 1)[1].split()
    assert int(stat[2]) != group and int(stat[3]) != session and int(stat[4]) == 0
    assert os.readlink(f"/proc/{helper}/cwd") == "/"
    kinds = [os.readlink(f"/proc/{helper}/fd/{n}") for n in os.listdir(f"/proc/{helper}/fd")]
    assert not [k for k in kinds if k.startswith("pipe:")]
    os.kill(helper, signal.SIGHUP)
    assert run(net, "print(echo(dial(ECHO), b'x'))", "--engine=helper", f"--control={control}") == "True\n"
    assert str(helper) in map(str, engines(net.client))


def test_a_helper_leaves_nothing_behind(lab, tmp_path):
    """Its idle time after the last connection has left TIME_WAIT it is gone, with its files, which it removes last of all."""
    net = far_end(lab.two_path(direct=True), tmp_path)
    name = f"ctl-{Path('/run/netns', net.client.ns).stat().st_ino}"
    files = [Path("/run/mpshim-0", name + end) for end in ("", ".lock")]
    for how in "--engine=helper", "--engine=auto": # one that ends between the two would be followed by one of usual patience
        net.client.run([MPTCP_RUN.resolve().parent / "mpshim-engine", "--idle", "3", "--setting", "time_wait_s=1"])
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:   # it is not idle, however late the program starts
            client.connect(str(files[0]))
            run(net, "print(echo(dial(ECHO), b'x'))", how)
            assert len(engines(net.client)) == 1 and all(file.exists() for file in files)
        # What an engine inside has handed over in TIME_WAIT already is so for 60 s, as that engine was told.
        wait_for(lambda: not any(file.exists() for file in files), 60 + 3 + 20)
        wait_for(lambda: not engines(net.client))


# -- every way to live

def test_spawning_from_many_threads(net):
    same(net, """
import threading
ok = []
def one(i):
    s = dial(ECHO); echo(s, b"%d" % i)
    for j in range(5):
        assert os.waitpid(os.posix_spawn("/bin/true", ["true"], os.environ), 0)[1] == 0
        assert subprocess.run(["echo", "x"], capture_output=True).stdout == b"x\\n"
        echo(s, b"again")
    ok.append(i)
ts = [threading.Thread(target=one, args=(i,)) for i in range(8)]
[t.start() for t in ts]; [t.join() for t in ts]; print(len(ok))
""")


def test_a_helper_takes_no_limits_from_its_first_program(net):
    """It serves others too, when that program's processor time is long over. (A hard limit takes CAP_SYS_RESOURCE to lift.)"""
    limited = ["nice", "-n", "5", "taskset", "1", "prlimit", "--cpu=3:", "--as=4000000000:", "--fsize=0:"]
    before = set(engines(net.client))
    p = net.client.popen([*limited, *shim("--engine=helper", "--syn-tries=9"), PYTHON, "-c", PRELUDE + "s = dial(ECHO); print(echo(s, b'up'), flush=True); sys.stdin.read()"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert p.stdout.readline() == "True\n"
    pid, = set(engines(net.client)) - before
    limits = {line[:26].strip(): line[26:].split()[:2] for line in Path(f"/proc/{pid}/limits").read_text().splitlines()}
    assert all(limits[name] == ["unlimited"] * 2 for name in ("Max cpu time", "Max address space", "Max file size")), limits
    assert os.getpriority(os.PRIO_PROCESS, pid) == 0 and len(os.sched_getaffinity(pid)) == os.cpu_count()
    p.stdin.close()
    assert p.wait(20) == 0


def test_why_a_helper_cannot_start_is_told(net):
    script = 'mount -t tmpfs -o ro none /run && exec "$@"'
    done = net.client.run(["unshare", "-m", "sh", "-c", script, "sh", *shim("-v", "--engine=helper"), PYTHON, "-c", PRELUDE + "dial(ECHO)"])
    assert "could not start: no safe place for the control socket: Read-only file system" in done.stderr


def test_fork_before_the_first_connection(net):
    """The child has an engine of its own, and its end loses nothing."""
    for _ in range(2):
        run(net, "if os.fork() == 0:\n s = dial(KEEP); s.sendall(BLOCK * 187500); os._exit(0)\nos.wait()")
        assert kept(net, 3_000_000)


NOBODY = "os.setgroups([]); os.setgid(65534); os.setuid(65534); "


@pytest.mark.parametrize("change", [NOBODY, "os.chroot('/var/empty' if os.path.isdir('/var/empty') else '/proc'); os.chdir('/'); "], ids=["setuid", "chroot"])
def test_a_client_that_gives_up_rights_loses_nothing(net, change):
    code = f"""
s = dial(ECHO); k = dial(KEEP)
{change}
echo(s, b"still"); print(s.getpeername(), s.getsockname()[0])
t = dial(ECHO); print(echo(t, b"new"), t.getpeername())
k.sendall(BLOCK * 62500); os._exit(0)
"""
    assert run(net, code) == f"('{FAR}', {ECHO}) 10.10.1.2\nTrue ('{FAR}', {ECHO})\n"
    assert kept(net, 1_000_000)


@pytest.mark.needs("mptcpize")
@pytest.mark.parametrize("change", [NOBODY, "os.chroot('/proc'); os.chdir('/'); ",
                                    "\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\n"],
                         ids=["setuid", "chroot", "daemon"])
def test_a_server_that_changes_after_listen(net, change):
    code = f"""
l = socket.create_server(("0.0.0.0", 7600))
{change}
print("ready", flush=True)
for i in range(2):
    s, a = l.accept(); s.sendall(a[0].encode() + b" " + s.recv(99)); s.close()
"""
    p = net.server.popen([*shim(), PYTHON, "-c", PRELUDE + code], stdout=subprocess.PIPE)
    try:
        assert p.stdout.readline() == "ready\n"
        with Watch(net) as seen:
            assert call(net, FAR, b"one") == "10.10.1.2 one"
            assert call(net, FAR, b"two") == "10.10.1.2 two"
        assert seen.mptcp(net.client, "MPCapableSYNACKRX") == 2
    finally:
        net.server.stop(p)


def test_another_network_namespace(net):
    """Sockets made there are the kernel's; those made before go on; there and back again."""
    same(net, """
here = os.open("/proc/self/ns/net", os.O_RDONLY); s = dial(ECHO); echo(s, b"before")
assert libc.unshare(0x40000000) == 0
t = socket.socket(); t.settimeout(5); print(t.connect_ex((FAR, ECHO))); l = socket.create_server(("0.0.0.0", 7999)); print(l.getsockname())
print(echo(s, b"meanwhile"))
assert libc.setns(here, 0x40000000) == 0
print(echo(dial(ECHO), b"back"), echo(s, b"on"))
""")


def test_strict_in_another_network_namespace(net):
    """No engine carries anything there: with --strict nothing may go out by the kernel either."""
    code = """
import errno
assert libc.unshare(0x40000000) == 0
print(errno.errorcode[socket.socket().connect_ex((FAR, ECHO))])
try: socket.create_server(("0.0.0.0", 7999))
except OSError as e: print(errno.errorcode[e.errno])
"""
    assert run(net, code, "--strict") == "EPROTONOSUPPORT\n" * 2


def test_a_user_namespace_of_its_own(net):
    """The kernel refuses it to a process with threads, as an engine inside would be one."""
    same(net, """
s = dial(ECHO); echo(s, b"before")
print(libc.unshare(0x10000000), ctypes.get_errno(), os.getuid()); echo(s, b"after"); print(s.getpeername(), echo(dial(ECHO), b"new"))
""")
    assert run(net, "print(libc.unshare(0x10000), ctypes.get_errno(), libc.setns(0, 0), ctypes.get_errno())") == "0 0 -1 22\n"


def test_real_vfork_and_fexecve_beside_a_connection(net):
    same(net, """
import threading
s = dial(ECHO); echo(s, b"before"); s.set_inheritable(True); s.setblocking(True)
threading.Thread(target=lambda: time.sleep(0.2)).start()
print(subprocess.run(["/bin/sh", "-c", f"printf vfork >&{s.fileno()}"], pass_fds=[s.fileno()]).returncode, s.recv(9))
time.sleep(0.3)
f = os.open(sys.executable, os.O_RDONLY)
os.execve(f, [sys.executable, "-c", f"import socket; s = socket.socket(fileno={s.fileno()}); s.sendall(b'fexecve'); print(s.recv(9), s.getpeername())"], os.environ)
""")


def test_the_first_process_of_a_container(net):
    """No helper becomes its child, and its end, which ends all of the container, loses nothing."""
    inner = PRELUDE + """
s = dial(ECHO); echo(s, b"x"); l = socket.create_server(("0.0.0.0", 7998))
try: os.waitpid(-1, os.WNOHANG); print("a child")
except ChildProcessError: print("no child")
k = dial(KEEP); k.sendall(BLOCK * 62500); sys.stdout.flush(); os._exit(0)
"""
    done = net.client.run(["unshare", "--pid", "--fork", "--mount-proc", *shim(f"--control={net.dir}/pid1"), PYTHON, "-c", inner])
    assert done.stdout == "no child\n"
    assert kept(net, 1_000_000)


def test_few_descriptors(net):
    same(net, """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
a = dial(ECHO); got = [a]
try:
    while True: got.append(socket.socket())
except OSError as e: print(e.errno)
print(echo(a, b"full")); del got[1:]
print(echo(dial(ECHO), b"again"))
""")


def test_a_connection_moved_over_other_numbers(net):
    same(net, """
s = dial(ECHO); n = s.fileno()
for to in 0, 5, 100, 900, 961, 1023: os.dup2(n, to); t = socket.socket(fileno=to); t.setblocking(True); echo(t, b"%d" % to); print(t.getpeername()); t.detach()
s.close(); os.close(0); t = socket.socket(fileno=5); print(echo(t, b"last"), echo(dial(ECHO), b"new"))
""")


SECCOMP = """
import struct
def restrict(numbers, action):
    code = [struct.pack("HBBI", 0x20, 0, 0, 0)]
    for n in numbers: code += [struct.pack("HBBI", 0x15, 0, 1, n), struct.pack("HBBI", 6, 0, 0, action)]
    code += [struct.pack("HBBI", 6, 0, 0, 0x7fff0000)]
    text = ctypes.create_string_buffer(b"".join(code))
    prog = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code), ctypes.addressof(text)))
    assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, prog, 0, 0) == 0
# socketpair, clone, unshare, close_range, memfd_create, ppoll, capget
UNUSUAL = [53, 56, 272, 436, 319, 271, 125]
KILL, EPERM = 0x80000000, 0x00050001
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="system call numbers of x86-64")
@pytest.mark.parametrize("action", ["KILL", "EPERM"])
def test_a_program_that_restricts_itself(net, action):
    """Before its first connection: plain TCP, with a reason. With connections: they go on."""
    first = f"{SECCOMP}\nrestrict(UNUSUAL, {action}); s = dial(ECHO); print(echo(s, b'x'), s.getpeername())"
    done = net.client.run([*shim("-v"), PYTHON, "-c", PRELUDE + first])
    assert done.stdout == f"True ('{FAR}', {ECHO})\n" and "kernel TCP: the program has restricted itself" in done.stderr
    later = f"""{SECCOMP}
s = dial(ECHO); k = dial(KEEP); echo(s, b"x"); restrict(UNUSUAL, {action})
print(echo(s, b"y"), s.getpeername(), s.getsockname()[0], echo(dial(ECHO), b"new")); k.sendall(BLOCK * 62500); sys.stdout.flush(); os._exit(0)
"""
    assert run(net, later) == f"True ('{FAR}', {ECHO}) 10.10.1.2 True\n"
    assert kept(net, 1_000_000)


def starts_under(net, filtering, options=""):
    """mptcp-run in a process that has this seccomp filter already: a connection goes by MPTCP."""
    inner = f"import socket; print(socket.create_connection((\"{FAR}\", {ECHO}), 5).getpeername())"
    code = f"{SECCOMP}\n{filtering}; os.execv({str(MPTCP_RUN)!r}, ['mptcp-run', '-v', {options}sys.executable, '-c', {inner!r}])"
    done = net.client.run([PYTHON, "-c", PRELUDE + code])
    assert done.stdout == f"('{FAR}', {ECHO})\n" and "connected, MPTCP" in done.stderr


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="system call numbers of x86-64")
def test_a_filter_that_was_there_before(net):
    """As in a container that refuses unshare: no engine inside, the helper instead."""
    starts_under(net, "restrict([272], EPERM)")


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="system call numbers of x86-64")
def test_a_filter_that_kills_for_bpf(net):
    """As systemd's SystemCallFilter=@system-service: the engine does without the filter that its guards would share."""
    starts_under(net, "restrict([321], KILL)", "'--engine=inside', ")
