"""A VPN as wg-quick sets it up: a rule sends everything but the tunnel's own datagrams into a table whose default route is the
tunnel, and where that is gone, nothing. No byte may leave beside it, whatever the host and the peer offer."""

import contextlib
import subprocess
import time

import pytest

from lab import make_file
from lab.host import HERE, PYTHON
from lab.shim import CurlRun, Watch, curl, shim

MB = 1_000_000
PORT, MARK = 4500, 51820
FAR = {4: "10.30.0.1", 6: "fd00:30::1"}
pytestmark = pytest.mark.needs("curl", "tcpdump")


def start_end(host, near, far):
    process = host.popen([PYTHON, HERE / "vpn.py", "tun0", near, far, PORT, MARK], stdout=subprocess.PIPE)
    assert process.stdout.readline() == "ready\n"
    return process


class Vpn:
    """Client and server on two paths, the server behind both and behind the tunnel. It announces its second address."""

    def __init__(self, net):
        self.net, self.client, self.server = net, net.client, net.server
        self.server.ip_batch([f"addr add {FAR[4]}/32 dev lo", f"addr add {FAR[6]}/128 dev lo nodad"])
        self.client.ip_batch([f"route add default via {via} dev eth{i} metric {100 * i + 100}"
                              for i in (0, 1) for via in (f"10.10.{i + 1}.1", f"fd00:10:{i + 1}::1")])

    def up(self):
        self.end = start_end(self.client, "10.10.1.2", "10.10.1.1")
        start_end(self.server, "10.10.1.1", "10.10.1.2")
        for host, n in (self.client, 2), (self.server, 1):
            host.ip_batch(["link set tun0 up mtu 1400", f"addr add 10.99.0.{n}/24 dev tun0", f"addr add fd00:99::{n}/64 dev tun0 nodad"])
        for family in "-4", "-6":
            self.client.ip(family, "route", "add", "default", "dev", "tun0", "table", str(MARK))
            self.client.ip(family, "route", "add", "blackhole", "default", "metric", "9999", "table", str(MARK))
            self.client.ip(family, "rule", "add", "not", "fwmark", str(MARK), "table", str(MARK), "pref", "100")

    @contextlib.contextmanager
    def nothing_beside(self):
        """What leaves on the interfaces is the tunnel's, or asks for a neighbour or a group."""
        beside = f"outbound and (ip or (ip6 and (tcp or udp))) and not udp port {PORT}"
        with self.client.capture("eth0", expression=beside) as first, self.client.capture("eth1", expression=beside) as second:
            yield
        for path in first, second:
            assert self.client.run(["tcpdump", "-nr", path]).stdout == ""

    def url(self, server, name, family):
        return server.url(name).replace(self.server.address(0), FAR[4] if family == 4 else f"[{FAR[6]}]")


@pytest.fixture
def vpn(lab):
    return Vpn(lab.two_path())


@pytest.mark.parametrize("family", [4, 6])
def test_a_transfer_stays_in_the_tunnel(vpn, family):
    file = make_file(4 * MB)
    server = vpn.server.spawn_http(file.root)
    vpn.up()
    with vpn.nothing_beside(), Watch(vpn.net) as seen:
        got = curl(vpn.client, vpn.url(server, file.name, family), wrap=shim("-v"))
    assert got.sha256 == file.sha256
    assert "MPTCP over tun0" in got.told
    assert seen.moved(vpn.client, "tun0") > file.size
    assert seen.mptcp(vpn.server, "MPCapableSYNRX") == 1
    assert seen.mptcp(vpn.server, "MPJoinSynRx") == 0


@pytest.mark.parametrize("family", [4, 6])
def test_a_tunnel_that_dies_takes_everything_with_it(vpn, family):
    file = make_file(40 * MB)
    server = vpn.server.spawn_http(file.root)
    vpn.up()
    with vpn.nothing_beside():
        running = CurlRun(vpn.client, vpn.url(server, file.name, family), wrap=shim("-v"))
        running.wait_for(MB)
        vpn.client.stop(vpn.end)
        time.sleep(1.5)
        again = curl(vpn.client, vpn.url(server, file.name, family), wrap=shim("-v"), check=False, timeout=2)
        vpn.client.stop(running.process)
        time.sleep(0.3)
    assert again.status and not again.said["size_download"]
    assert running.size() < file.size
