"""include/mpshim.h: RFC 6897's calls, and the example that uses them."""
import re
import subprocess

import pytest
from conftest import HOSTS, MPTCP_RUN, ROOT

PATHS = MPTCP_RUN.parent / "examples/paths"
ECHO = 7101


@pytest.fixture(scope="module", autouse=True)
def built():
    subprocess.run(["make", "-s", "-C", ROOT, f"B={MPTCP_RUN.parent}", PATHS], check=True)


def test_example_without_the_shim(net):
    assert net.client.run([PATHS, "10.10.1.1", ECHO, "10.10.1.2"], check=False).stdout.startswith("plain TCP\n")


@pytest.mark.parametrize("engine", HOSTS)
def test_example_leaves_a_path_and_takes_it_again(net, engine):
    out = net.client.run([MPTCP_RUN, f"--engine={engine}", PATHS, "10.10.1.1", ECHO, "10.10.1.2"], timeout=20).stdout
    before, between, after = [sorted(re.findall(r"  (\w+):", part)) for part in out.split("connection identified: MPTCP, ")[1:]]
    assert (before, between, after) == (["eth0", "eth1"], ["eth1"], ["eth0", "eth1"]), out


CALLS = """
LEVEL, ENABLE, ADD, REMOVE, SUBFLOWS, CONNID = 0x4d50, 1, 2, 3, 4, 5
def sa(ip): return struct.pack("=HH4s8x", 2, 0, socket.inet_aton(ip))
def up(s): b = s.getsockopt(LEVEL, SUBFLOWS, 960); return [struct.unpack_from("I", b, n + 280)[0] for n in range(0, len(b), 320)].count(1)
"""


@pytest.mark.parametrize("engine", HOSTS)
def test_errors(same, engine):
    out, _ = same.run(CALLS + """
s = dial(ECHO); s.sendall(b"x"); s.recv(1); wait(lambda: up(s) >= 2); time.sleep(0.3)  # its fourth ACK
print(err(s.setsockopt, LEVEL, ENABLE, 1), s.getsockopt(LEVEL, ENABLE), err(s.setsockopt, LEVEL, REMOVE, sa("192.0.2.9")), err(s.setsockopt, LEVEL, ADD, b"x"))
print(err(s.setsockopt, LEVEL, REMOVE, sa("10.10.1.2")), err(s.setsockopt, LEVEL, REMOVE, sa("10.10.1.2")), err(s.setsockopt, LEVEL, REMOVE, sa("10.10.2.2")))
s.sendall(b"still"); print(s.recv(5), err(s.getsockopt, LEVEL, 99), err(s.setsockopt, LEVEL, 99, 1), len(s.getsockopt(LEVEL, CONNID, 4)))
t = socket.socket(); print(t.getsockopt(LEVEL, ENABLE), err(t.getsockopt, LEVEL, CONNID), err(t.setsockopt, LEVEL, REMOVE, sa("10.10.1.2")))
""", engine)
    assert out == "EISCONN 1 EADDRNOTAVAIL EINVAL\nNone None EBUSY\nb'still' ENOPROTOOPT ENOPROTOOPT 4\n1 ENOTCONN ENOTCONN\n"


@pytest.mark.parametrize("engine", HOSTS)
def test_a_program_may_want_plain_tcp(same, engine):
    out, told = same.run(CALLS + """
s = socket.socket(); print(s.setsockopt(LEVEL, ENABLE, 0), s.getsockopt(LEVEL, ENABLE)); s.connect((FAR, ECHO)); s.sendall(b"p"); print(s.recv(1), s.getsockopt(LEVEL, ENABLE), err(s.getsockopt, LEVEL, CONNID))
""", engine)
    assert out == "None 0\nb'p' 0 ENOTSUP\n"
    assert not any("MPTCP over" in line for line in told), told
    out, told = same.run(CALLS + """
s = socket.socket(); s.setsockopt(LEVEL, ENABLE, 0); s.setsockopt(LEVEL, ENABLE, 1); print(s.getsockopt(LEVEL, ENABLE)); s.connect((FAR, ECHO)); s.sendall(b"p"); print(s.recv(1), s.getsockopt(LEVEL, ENABLE))
""", engine)
    assert out == "1\nb'p' 1\n"


def test_bare_sockets_refuse(same):
    out, _ = same.run(CALLS + "s = dial(ECHO); print(err(s.getsockopt, LEVEL, ENABLE) in ('ENOPROTOOPT', 'ENOTSUP'), err(s.setsockopt, LEVEL, ENABLE, 1) in ('ENOPROTOOPT', 'ENOTSUP'))")
    assert out == "True True\n"
