"""Peers and paths without MPTCP: the transfer is right, and the reason is told."""

from pathlib import Path

import pytest

from lab import make_file
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
