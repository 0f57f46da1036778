"""Peers and paths without MPTCP: the transfer is right, and the reason is told."""

import subprocess
from pathlib import Path

import pytest

from lab import make_file
from lab.host import PYTHON
from lab.shim import KERNEL, Watch, curl, shim

MB = 1_000_000
SIZE = 3 * MB
pytestmark = pytest.mark.needs("curl", "mptcpize")


class LoggedServer:
    """The lab's HTTP server under mptcp-run -v, and its log."""

    def __init__(self, host, root):
        self.log = Path(host.scratch("log-"), "log")
        self.server = host.spawn_http(root, mptcp=False, wrap=shim("-v", f"--log={self.log}"), congestion=None)
        self.url = self.server.url

    def told(self):
        return self.log.read_text()


# -- plain peers

@pytest.mark.parametrize("up", [False, True], ids=["down", "up"])
def test_a_plain_server_is_told(two_path, up):
    file = make_file(SIZE)
    server = two_path.server.spawn_http(file.root, mptcp=False)
    got = curl(two_path.client, server.url("x" if up else file.name), wrap=shim("-v"), put=file if up else None)
    assert got.sha256 == file.sha256
    assert "plain TCP: the peer or the path has no MPTCP" in got.told


@pytest.mark.parametrize("up", [False, True], ids=["down", "up"])
def test_a_plain_client_is_told(two_path, up):
    file = make_file(SIZE)
    server = LoggedServer(two_path.server, file.root)
    got = curl(two_path.client, server.url("x" if up else file.name), put=file if up else None)
    assert got.sha256 == file.sha256
    assert "plain TCP: the peer or the path has no MPTCP" in server.told()


def test_a_plain_peer_over_ipv6(lab):
    net, file = lab.two_path(families="v6"), make_file(SIZE)
    server = net.server.spawn_http(file.root, mptcp=False)
    got = curl(net.client, server.url(file.name, family=6), wrap=shim("-v"))
    assert got.sha256 == file.sha256 and "plain TCP" in got.told


# -- middleboxes on the first path: hook, and what the client under mptcp-run says of it

FIRST_PATH = {
    "strip-syn": "no MP_CAPABLE in the handshake",
    "strip-synack": "no MP_CAPABLE in the handshake",
    "strip-all": "no MP_CAPABLE in the handshake",
    "strip-nonsyn": "MPTCP options vanished on the path after the handshake",
    "drop-syn": "SYNs with the MPTCP option were not answered, one without was",
}


@pytest.mark.parametrize("hook", FIRST_PATH)
def test_a_box_on_the_first_path_makes_the_client_fall_back(lab, hook):
    net, file = lab.two_path(families="v4"), make_file(SIZE)
    net.link[0].hook(hook)
    server = net.server.spawn_http(file.root)
    got = curl(net.client, server.url(file.name), wrap=shim("-v"))
    assert got.sha256 == file.sha256
    assert "plain TCP: " in got.told and FIRST_PATH[hook] in got.told


@pytest.mark.parametrize("hook", FIRST_PATH)
def test_a_box_on_the_first_path_makes_the_server_fall_back(lab, hook):
    net, file = lab.two_path(families="v4"), make_file(SIZE)
    net.client.sysctl({"mptcp/syn_retrans_before_tcp_fallback": 0})
    net.link[0].hook(hook)
    server = LoggedServer(net.server, file.root)
    assert curl(net.client, server.url(file.name), wrap=KERNEL).sha256 == file.sha256
    assert "plain TCP: " in server.told()


@pytest.mark.parametrize("client, server", [("shim", "kernel"), ("kernel", "shim"), ("shim", "shim")])
@pytest.mark.parametrize("hook", FIRST_PATH)
def test_a_box_on_the_second_path_costs_only_that_path(lab, hook, client, server):
    net, file = lab.two_path(families="v4"), make_file(SIZE)
    net.link[1].hook(hook)
    far = LoggedServer(net.server, file.root) if server == "shim" else net.server.spawn_http(file.root)
    with Watch(net) as seen:
        got = curl(net.client, far.url(file.name), wrap=shim() if client == "shim" else KERNEL)
    assert got.sha256 == file.sha256
    assert seen.moved(net.client, "eth0") > SIZE
    for host in net.client, net.server:
        assert not any("Fallback" in name for name in seen.bad(host)), seen.bad(host)


# -- the end of a short answer, a DATA_FIN, which a box takes out with the other options before the server hears of our fallback

SHORT = """
import socket, sys
if sys.argv[1] == "listen":
    listener = socket.socket(proto=socket.IPPROTO_MPTCP); listener.bind(("0.0.0.0", 9000)); listener.listen(); print("ready", flush=True)
    while True:
        s = listener.accept()[0]; s.recv(100); s.sendall(bytes(3000)); s.close()
s = socket.create_connection((sys.argv[2], 9000), timeout=5); s.send(b"?")
got = 0
while got < 3000: got += len(s.recv(4096))
t = socket.create_connection((sys.argv[2], 9000), timeout=5); t.send(b"?")
while part := t.recv(4096): got += len(part)
print(got, flush=True)
"""


@pytest.mark.parametrize("hook", ["strip-nonsyn,dir=b2a", "strip-nonsyn"], ids=["down", "two-way"])
def test_behind_a_box_that_takes_options_out_the_next_connection_is_plain_from_the_start(lab, hook):
    net = lab.two_path(families="v4")
    net.link[0].hook(hook)
    program = [PYTHON, "-c", SHORT]
    server = net.server.popen([*program, "listen"], stdout=subprocess.PIPE)
    assert server.stdout.readline() == "ready\n"
    client = net.client.run([*shim("-v"), *program, "connect", net.server.address()])
    assert client.stdout == "6000\n"
    assert "or the path to it not to carry it" in client.stderr


# -- urgent data with a peer that has it: plain TCP of the kernel

URGENT = """
import errno, fcntl, os, signal, socket, sys
role, inline, address = sys.argv[1:]
if "listen" in role:
    listener = socket.create_server(("0.0.0.0", 9000)); print("ready", flush=True); s = listener.accept()[0]
else:
    s = socket.create_connection((address, 9000))
s.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, int(inline))
if "send" in role:
    s.send(b"abc"); s.send(b"!", socket.MSG_OOB); s.send(b"def"); s.shutdown(socket.SHUT_WR); s.recv(1)
else:
    urged, got = [], b""
    signal.signal(signal.SIGURG, lambda *_: urged.append(1))
    fcntl.fcntl(s, fcntl.F_SETOWN, os.getpid())
    while part := s.recv(100): got += part
    try: mark = s.recv(1, socket.MSG_OOB)
    except OSError as e: mark = errno.errorcode[e.errno]
    print(got.decode(), mark, bool(urged), flush=True)
"""


@pytest.mark.parametrize("inline", ["0", "1"], ids=["", "oobinline"])
@pytest.mark.parametrize("sender", ["ours", "kernel"])
@pytest.mark.parametrize("ours", ["connects", "listens"])
def test_an_urgent_byte_keeps_its_place_in_the_stream(two_path, ours, sender, inline):
    """As with SO_OOBINLINE, whether the program set it or not: no mark, no SIGURG, and no byte of the stream missing."""
    program = [PYTHON, "-c", URGENT]
    listens, connects = ("send", "recv") if (sender == "ours") == (ours == "listens") else ("recv", "send")
    wrap = {True: shim("-v"), False: ()}
    server = two_path.server.popen([*wrap[ours == "listens"], *program, f"listen-{listens}", inline, "-"], stdout=subprocess.PIPE)
    assert server.stdout.readline() == "ready\n"
    client = two_path.client.run([*wrap[ours == "connects"], *program, f"connect-{connects}", inline, two_path.server.address()])
    said = client.stdout if connects == "recv" else server.communicate(timeout=20)[0]
    assert said == "abc!def EINVAL False\n"
