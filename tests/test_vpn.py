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

    def down(self):
        for family in "-4", "-6":
            self.client.ip(family, "rule", "del", "pref", "100")
        self.client.stop(self.end)

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


def sent(running, net):
    """Payload so far, whichever way it goes."""
    return net.server.traffic()["eth0"][0] + net.server.traffic()["eth1"][0] if running.put else running.size()


def begin(vpn, file, family, up, mptcp=True):
    """A transfer that began before the VPN, of which the first megabyte is over."""
    server = vpn.server.spawn_http(file.root, mptcp=mptcp)
    url = vpn.url(server, "x" if up else file.name, family)
    running = CurlRun(vpn.client, url, wrap=shim("-v"), put=file if up else None)
    end = time.monotonic() + 20
    while sent(running, vpn.net) < MB and time.monotonic() < end:
        time.sleep(0.01)
    return running


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


# -- connections from before it came up

@pytest.mark.parametrize("family, up", [(4, False), (4, True), (6, False), (6, True)])
def test_a_transfer_from_before_goes_on_in_the_tunnel(lab, family, up):
    vpn, file = Vpn(lab.two_path(rate="20M")), make_file(10 * MB)
    running = begin(vpn, file, family, up)
    with contextlib.ExitStack() as watched:
        with vpn.net.slowly("2M"):                     # a quarter of the file in five seconds, which a busy machine may need for this
            vpn.up()
            watched.enter_context(vpn.nothing_beside())
            seen = watched.enter_context(Watch(vpn.net))
            left = file.size - sent(running, vpn.net)
        got = running.result()
    assert got.sha256 == file.sha256
    assert left > 2 * MB and seen.moved(vpn.client, "tun0") > left / 2   # the rest had left before the rule was there
    assert "tun0" in got.told


@pytest.mark.parametrize("up", [False, True], ids=["down", "up"])
def test_plain_tcp_from_before_waits_until_the_vpn_is_gone(lab, up):
    """The kernel's own would send into the tunnel, with an address that leads nowhere there, and wait as well."""
    vpn, file = Vpn(lab.two_path(rate="20M")), make_file(5 * MB)
    running = begin(vpn, file, 4, up, mptcp=False)
    with vpn.net.slowly():
        vpn.up()
    with vpn.nothing_beside():
        time.sleep(0.5)
        had = sent(running, vpn.net)
        time.sleep(0.5)
        assert sent(running, vpn.net) == had < file.size
    vpn.down()
    assert running.result().sha256 == file.sha256


def test_a_vpn_that_goes_gives_the_paths_back(lab):
    vpn, file = Vpn(lab.two_path(rate="20M")), make_file(20 * MB)
    running = begin(vpn, file, 4, up=True)
    with contextlib.ExitStack() as watched:
        with vpn.net.slowly():
            vpn.up()
            with vpn.nothing_beside():
                time.sleep(0.5)
            vpn.down()
            seen = watched.enter_context(Watch(vpn.net))
        got = running.result()
    assert got.sha256 == file.sha256
    for device in "eth0", "eth1":
        assert seen.moved(vpn.client, device) > file.size / 10, got.told


def test_a_server_answers_nobody_beside_it(lab):
    """Where the kernel's answer would go into the tunnel, ours goes nowhere: neither to a client from before nor to a new one."""
    vpn, file = Vpn(lab.two_path(rate="20M")), make_file(20 * MB)
    vpn.server.ip_batch([f"route add default via 10.10.{i + 1}.2 dev eth{i} metric {100 * i + 100}" for i in (0, 1)])
    vpn.client.ip_batch(["addr add 10.40.0.1/32 dev lo"])
    server = vpn.client.spawn_http(file.root, mptcp=False, wrap=shim(), congestion=None)
    url = server.url(file.name).replace(vpn.client.address(0), "10.40.0.1")
    source = ["--interface", FAR[4]]                   # one that is not on the link: the VPN has the way to it
    running = CurlRun(vpn.server, url, options=source)
    running.wait_for(MB)
    with vpn.net.slowly():
        vpn.up()
    with vpn.nothing_beside():
        time.sleep(0.3)
        had = running.size()
        again = curl(vpn.server, url, check=False, timeout=1, options=source)
        assert running.size() == had < file.size
    assert again.status == 28 and not again.said["size_download"]
