"""A program that is killed with its engine inside: a helper tells its peers (engine/will.h), as the kernel would of its own sockets."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time

import pytest

import lab as lab_package
from lab.host import PYTHON
from lab.netns import processes
from lab.shim import MPTCP_RUN, ROOT, Watch, engines, shim

FAR, FAR6, PORT = "10.10.1.1", "fd00:10:1::1", 7000
MPTCP_STAT = MPTCP_RUN.parent / "mptcp-stat"

# Reads, or also sends all the while, and says how that ended.
PEER = f"""import os, socket, sys, threading
kind, does, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
l = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 262 if kind == "kernel" else 0)
l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); l.bind(("::", port)); l.listen(); print("ready", flush=True)
while True:
    s = l.accept()[0]; n = 0
    try:
        while does == "sends": n += s.send(b"x" * 65536)
        while data := s.recv(65536): n += len(data); print("got", n, flush=True)
        end = "end"
    except OSError as e: end = os.strerror(e.errno)
    s.close(); print("over", end, flush=True)
"""
PROGRAM = """import os, socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10); s.settimeout(None); s.sendall(b"abc"); print("up", flush=True)
while len(sys.argv) > 3 and s.recv(1 << 20): pass
sys.stdin.read()
"""


@pytest.fixture
def net(lab):
    return lab.two_path(direct=True)


@contextlib.contextmanager
def peer(net, kind, does="reads", port=PORT):
    p = net.server.popen([*(shim() if kind == "ours" else ()), PYTHON, "-c", PEER, kind, does, port], stdout=subprocess.PIPE)
    assert p.stdout.readline() == "ready\n"
    try:
        yield p
    finally:
        net.server.stop(p)


def program(net, *args, code=PROGRAM, options=("--engine=inside",)):
    p = net.client.popen([*shim(*options), PYTHON, "-c", code, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert p.stdout.readline() == "up\n"
    return p


def status(host):
    return json.loads(host.run([MPTCP_STAT, "--json", "--interval=0"]).stdout)


def wait_for(what, timeout=10):
    end = time.monotonic() + timeout
    while not (v := what()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return v


def is_told(host, pid):
    """A helper has this program's will, all its subflows in it."""
    return any(e["pid"] == pid and e["will_told"] for e in status(host)) and any(e["wills"] for e in status(host))


def ports(engine):
    return {s["local"].rpartition(":")[2] for c in engine["connections"] for s in c["subflows"]}


def is_a_second_old(host, pid):
    """The guards of all its ports are the helper's too."""
    told = status(host)
    return sum(e["will_ports"] for e in told) == len(ports(next(e for e in told if e["pid"] == pid))) > 0


def killed(host, p, sig=signal.SIGKILL):
    wait_for(lambda: is_told(host, p.pid))
    wait_for(lambda: is_a_second_old(host, p.pid))
    p.send_signal(sig)
    assert p.wait(10) == -sig


def over(p):
    """How it ended for the peer. One that waits for other subflows waits a minute."""
    patience = threading.Timer(20, p.kill)
    patience.start()
    while not (line := p.stdout.readline()).startswith("over"):
        assert line, "the peer heard of nothing"
    patience.cancel()
    return line[5:-1]


@pytest.mark.parametrize("kind, sig, far", [("kernel", signal.SIGKILL, FAR), ("plain", signal.SIGKILL, FAR), ("ours", signal.SIGKILL, FAR), ("kernel", signal.SIGSEGV, FAR),
                                            ("kernel", signal.SIGKILL, FAR6), ("plain", signal.SIGKILL, FAR6), ("ours", signal.SIGABRT, FAR6)])
def test_a_peer_that_only_reads_hears_of_it(net, kind, sig, far):
    with peer(net, kind) as p, Watch(net) as seen:
        killed(net.client, program(net, far, PORT), sig)
        assert over(p) == "Connection reset by peer"
    if kind == "kernel":
        assert seen.mptcp(net.server, "MPJoinAckRx") == 1 and seen.mptcp(net.server, "MPFastcloseRx") >= 1
    wait_for(lambda: not any(e["wills"] for e in status(net.client)))


@pytest.mark.parametrize("kind", ["kernel", "plain", "ours"])
def test_a_peer_that_sends_hears_of_it_as_soon(net, kind):
    """No reset of the kernel's comes first, which would end the subflows and leave the connection waiting for others."""
    with peer(net, kind, "sends") as p:
        killed(net.client, program(net, FAR, PORT, "receive"))
        assert over(p) in ("Connection reset by peer", "Broken pipe")


def test_several_connections_to_several_ports(net):
    with peer(net, "kernel") as p, peer(net, "plain", port=PORT + 1) as q:
        k = program(net, FAR, PORT, PORT + 1, code=PROGRAM.replace("while len", "t = socket.create_connection((sys.argv[1], int(sys.argv[3])), 10); t.sendall(b'x')\nwhile 3 < 0 and len"))
        killed(net.client, k)
        assert over(p) == over(q) == "Connection reset by peer"


def test_a_hundred_connections(net):
    """More than a page of the file holds."""
    code = f"import os, socket\nl = socket.socket(2, 1, 262); l.bind(('0.0.0.0', {PORT})); l.listen(); print('ready', flush=True); all = [l.accept()[0] for _ in range(100)]\n" \
        "for s in all:\n  try:\n    while s.recv(9): pass\n    print('over end', flush=True)\n  except OSError as e: print('over', os.strerror(e.errno), flush=True)"
    p = net.server.popen([PYTHON, "-c", code], stdout=subprocess.PIPE)
    assert p.stdout.readline() == "ready\n"
    killed(net.client, program(net, FAR, PORT, code=PROGRAM.replace("print(", "more = [socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) for _ in range(99)]; print(")))
    assert [over(p) for _ in range(100)] == ["Connection reset by peer"] * 100


ACCEPTS = f"""import socket, sys
l = socket.socket(); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); l.bind(("0.0.0.0", {PORT})); l.listen(); print("up", flush=True)
s = l.accept()[0]; sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["kernel", "plain", "ours"])
def test_a_client_of_a_killed_server_hears_of_it(net, kind):
    """The server has said nothing yet. A helper is started for the first connection that a listener brings."""
    code = f"import os, socket, sys\ns = socket.socket(socket.AF_INET, socket.SOCK_STREAM, {262 if kind == 'kernel' else 0}); s.connect(('10.10.1.2', {PORT})); print('ready', flush=True)\n" \
        "try: print('over', s.recv(9) or 'end', flush=True)\nexcept OSError as e: print('over', os.strerror(e.errno), flush=True)"
    k = program(net, code=ACCEPTS)
    assert not engines(net.client)
    p = net.server.popen([*(shim() if kind == "ours" else ()), PYTHON, "-c", code], stdout=subprocess.PIPE)
    assert p.stdout.readline() == "ready\n"
    wait_for(lambda: is_told(net.client, k.pid))
    k.kill()
    assert over(p) == "Connection reset by peer"


@pytest.mark.parametrize("end", ["kill", "replace"])
def test_another_helper_has_it_when_the_first_ends(net, end):
    with peer(net, "kernel") as p:
        k = program(net, FAR, PORT)
        wait_for(lambda: is_told(net.client, k.pid))
        first, = engines(net.client)
        if end == "kill":
            os.kill(first, signal.SIGKILL)
        else:
            net.client.run([MPTCP_RUN.parent / "mpshim-engine", "--replace"])
        wait_for(lambda: engines(net.client) not in ([], [first]) and is_told(net.client, k.pid), 15)
        killed(net.client, k)
        assert over(p) == "Connection reset by peer"


def test_a_short_run_starts_none_and_an_idle_one_keeps_none(net):
    with peer(net, "kernel") as p:
        k = program(net, FAR, PORT)
        k.stdin.close()
        assert k.wait() == 0 and over(p) == "end"
        assert not engines(net.client)
        # Nothing to say any more: the helper does not count this program.
        k = program(net, FAR, PORT, code=PROGRAM.replace("sys.stdin.read()", "sys.stdin.readline(); s.close(); sys.stdin.read()"))
        wait_for(lambda: is_told(net.client, k.pid))
        k.stdin.write("\n")
        k.stdin.flush()
        assert over(p) == "end"
        wait_for(lambda: not any(e["wills"] for e in status(net.client)))
        wait_for(lambda: not engines(net.client), 20)
        time.sleep(1.5)  # and nobody starts another
        assert k.poll() is None and not engines(net.client)


@pytest.mark.parametrize("how", ["sys.exit()", "os._exit(0)", "os.execv('/bin/true', ['true'])", "os.kill(os.getpid(), 15)"])
def test_an_end_in_order_is_none_of_these(net, how):
    """What was written arrives, then the end; nothing is said in the program's name."""
    with peer(net, "kernel") as p, Watch(net) as seen:
        k = program(net, FAR, PORT, code=PROGRAM.replace("sys.stdin.read()", f"sys.stdin.readline(); s.sendall(b'x' * 1000000); {how}"))
        wait_for(lambda: is_told(net.client, k.pid))
        k.stdin.write("\n")
        k.stdin.flush()
        k.wait()
        assert over(p) == "end"
        wait_for(lambda: not any(e["wills"] for e in status(net.client)))
    assert not seen.bad(net.server)


def test_children_and_the_dead_leave_nothing_behind(net):
    """A forked child that lives on has nothing of it: the peer hears of its parent's end all the same."""
    with peer(net, "kernel") as p:
        k = program(net, FAR, PORT, code=PROGRAM.replace("sys.stdin.read()", "child = os.fork()\nif not child: s.close(); time.sleep(60)\nsys.stdin.read()"))
        killed(net.client, k)
        assert over(p) == "Connection reset by peer"
        helper, = engines(net.client)
        wait_for(lambda: not any("mpshim-will" in os.readlink(f"/proc/{helper}/fd/{n}") for n in os.listdir(f"/proc/{helper}/fd")))
        for pid in processes(net.client.ns):
            assert pid == helper or "mpshim-will" not in open(f"/proc/{pid}/maps").read(), pid


def test_ports_are_free_when_all_is_said(net):
    with peer(net, "kernel") as p:
        k = program(net, FAR, PORT)
        wait_for(lambda: is_told(net.client, k.pid))
        port = min(ports(next(e for e in status(net.client) if e["pid"] == k.pid)))
        killed(net.client, k)
        over(p)
        wait_for(lambda: not net.client.run([PYTHON, "-c", f"import socket; socket.create_server(('', {port}))"], check=False).returncode, 5)


# Takes the place of a helper that knows nothing of wills, or is stopped.
SILENT = """import socket, sys
l = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); l.bind(sys.argv[1]); l.listen(); print("ready", flush=True)
s = l.accept()[0]
while got := socket.recv_fds(s, 65536, 64)[:2]:
    if not got[0]: break
    print("asked", got[1], flush=True)
print("left", flush=True); l.accept()
"""


def test_a_helper_that_does_not_answer_gets_nothing_and_is_left(net):
    """What it got it would say when we leave, however late it reads it."""
    ctl = str(net.client.scratch("will-")) + "/ctl"
    helper = net.client.popen([PYTHON, "-c", SILENT, ctl], stdout=subprocess.PIPE)
    assert helper.stdout.readline() == "ready\n"
    with peer(net, "kernel"):
        k = program(net, FAR, PORT, options=("--engine=inside", f"--control={ctl}"))
        assert helper.stdout.readline() == "asked []\n"
        asked = time.monotonic()
        assert helper.stdout.readline() == "left\n"
        assert 0.5 < time.monotonic() - asked < 5
        assert k.poll() is None


LIBC = "import ctypes, struct\nlibc = ctypes.CDLL(None)\n"
X86 = os.uname().machine == "x86_64"  # numbers of system calls: capset, setresuid
GIVE_UP = {
    "rights": f"assert libc.syscall(ctypes.c_long({126 if X86 else 91}), struct.pack('Ii', 0x20080522, 0), bytes(24)) == 0\n",
    "user": f"assert libc.syscall(ctypes.c_long({117 if X86 else 147}), ctypes.c_long(-1), ctypes.c_long(65534), ctypes.c_long(-1)) == 0\n",
    "subreaper": "assert libc.prctl(36, 1, 0, 0, 0) == 0\n",
}


@pytest.mark.parametrize("what", GIVE_UP)
def test_no_helper_is_started_past_what_the_program_gave_up(net, what):
    """Capabilities, or the user, of its own thread only, or orphans that would be its own."""
    with peer(net, "kernel"):
        k = program(net, FAR, PORT, code=PROGRAM.replace("sys.stdin.read()", LIBC + GIVE_UP[what] + "sys.stdin.read()"))
        time.sleep(2.5)
        assert k.poll() is None and not engines(net.client)


def engine_turns(pid):
    """How often the engine's thread has slept."""
    task, = (t for t in os.listdir(f"/proc/{pid}/task") if open(f"/proc/{pid}/task/{t}/comm").read() == "mpshim-engine\n")
    return next(int(line.split()[1]) for line in open(f"/proc/{pid}/task/{task}/status") if line.startswith("voluntary"))


def test_an_engine_that_may_look_for_no_helper_sleeps(net, tmp_path):
    """Its program has restricted itself, and there was no helper to move to."""
    for name in "mptcp-run", "libmpshim.so", "libmpshim-engine.so":
        shutil.copy(MPTCP_RUN.parent / name, tmp_path)
    code = PROGRAM.replace("sys.stdin.read()", "import ctypes\nctypes.CDLL(None).prctl(38, 1, 0, 0, 0)\nsys.stdin.read()")
    with peer(net, "kernel"):
        k = net.client.popen([tmp_path / "mptcp-run", PYTHON, "-c", code, FAR, PORT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert k.stdout.readline() == "up\n"
        time.sleep(1.5)
        turns = engine_turns(k.pid)
        time.sleep(1)
        assert engine_turns(k.pid) - turns < 50


TESTS = ROOT / os.environ.get("B", "build") / "tests"


def test_of_a_will_nothing_is_believed():
    done = subprocess.run([TESTS / "engine_will"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# Its connection, and the exact numbers that would end it (TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ).
VICTIM = """import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10); s.sendall(b"abc"); s.recv(3)
def number(queue): s.setsockopt(6, 20, queue); return s.getsockopt(6, 21) & 0xffffffff
s.setsockopt(6, 19, 1); recv, send = number(1), number(2); s.setsockopt(6, 19, -1)
print("up", flush=True); print(s.getsockname()[1], send, recv, flush=True); sys.stdin.read(1); s.sendall(b"more"); print(s.recv(4), flush=True)
"""
ECHO = f"""import socket
l = socket.create_server(("0.0.0.0", {PORT})); print("ready", flush=True)
while True:
    s = l.accept()[0]
    while data := s.recv(65536): s.sendall(data)
"""


def test_a_forged_will_ends_nobody_elses_connection(net):
    """The kernel's, of another process; without a raw socket to show it is not even read."""
    far = net.server.popen([PYTHON, "-c", ECHO], stdout=subprocess.PIPE)
    assert far.stdout.readline() == "ready\n"
    ctl = str(net.client.scratch("will-")) + "/ctl"
    net.client.popen([MPTCP_RUN.parent / "mpshim-engine", "--foreground", "--idle", "0", "--ctl", ctl])
    wait_for(lambda: os.path.exists(ctl))
    p = net.client.popen([PYTHON, "-c", VICTIM, FAR, PORT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert p.stdout.readline() == "up\n"
    port, seq, ack = p.stdout.readline().split()
    index = net.client.run(["cat", "/sys/class/net/eth0/ifindex"]).stdout.strip()

    def forged(shown, port):
        time.sleep(0.1)
        return net.client.run([TESTS / "engine_forge", ctl, shown, index, "10.10.1.2", port, FAR, PORT, seq, ack], check=False).returncode
    assert forged("none", port) == 2
    assert forged("raw", port) == 0
    wait_for(lambda: not any(e["wills"] for e in status(net.client)))
    time.sleep(1.5)  # all three times
    p.stdin.write("x")
    p.stdin.flush()
    assert p.stdout.readline() == "b'more'\n"
