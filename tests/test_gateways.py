"""A gateway or a neighbour changes under a connection: frames to the old one's address reach nobody. The path goes on."""

import time

import pytest

from lab import make_file
from lab.shim import CurlRun, Watch, curl, shim
from lab.topology import DROP_INVALID

MB = 1_000_000
SIZE = 24 * MB
FAR = {4: "10.30.0.1", 6: "fd00:30::1"}
OTHER = {4: "10.10.1.99", 6: "fd00:10:1::99"}
pytestmark = pytest.mark.needs("curl", "mptcpize")


def url(net, server, name, family):
    return server.url(name).replace(net.server.address(0), FAR[4] if family == 4 else f"[{FAR[6]}]")


@pytest.fixture
def routed(lab):
    """The server is the gateway on both paths as well."""
    net = lab.two_path()
    net.server.ip_batch([f"addr add {FAR[4]}/32 dev lo", f"addr add {FAR[6]}/128 dev lo nodad"])
    net.client.ip_batch([f"route add default via {via} dev eth{i} metric {100 * i + 100}"
                         for i in (0, 1) for via in (f"10.10.{i + 1}.1", f"fd00:10:{i + 1}::1")])
    return net


def upload_over_a_change(net, family, change, wrap=None, serve=None):
    """The bytes that eth0 of the server took in after the change, and what curl said."""
    file = make_file(SIZE)
    server = net.server.spawn_http(file.root, **(serve or {}))
    before = net.server.traffic()["eth0"][0]
    running = CurlRun(net.client, url(net, server, "x", family), wrap=wrap or shim("-v"), put=file)
    end = time.monotonic() + 20
    while net.server.traffic()["eth0"][0] < before + SIZE // 6 and time.monotonic() < end:
        time.sleep(0.01)
    with net.slowly():
        change()
        time.sleep(0.3)                              # what was under way before
        at = net.server.traffic()["eth0"][0]
    got = running.result()
    assert got.sha256 == file.sha256
    return net.server.traffic()["eth0"][0] - at, got


@pytest.mark.parametrize("family", [4, 6])
def test_a_neighbour_that_changes_and_says_so(routed, family):
    """As a router's stand-in does (VRRP): it takes the address over, by gratuitous ARP or an unsolicited advertisement."""
    routed.server.sysctl({"ipv4/conf/eth0/arp_notify": 1, "ipv6/conf/eth0/ndisc_notify": 1})

    def change():
        routed.server.ip("link", "set", "eth0", "address", "02:00:00:00:77:01")

    moved, got = upload_over_a_change(routed, family, change)
    assert moved > SIZE * 0.1, got.told


@pytest.mark.parametrize("family", [4, 6])
def test_a_gateway_that_is_replaced(routed, family):
    prefix = 24 if family == 4 else 64

    def change():
        routed.server.ip_batch([f"addr add {OTHER[family]}/{prefix} dev eth0" + (" nodad" if family == 6 else ""),
                                "link set eth0 address 02:00:00:00:77:02"])
        routed.client.ip(f"-{family}", "route", "replace", "default", "via", OTHER[family], "dev", "eth0", "metric", "100")

    moved, got = upload_over_a_change(routed, family, change)
    assert moved > SIZE * 0.1, got.told


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("guarded", ["client", "server"])
def test_a_host_that_drops_what_its_connection_tracking_calls_invalid(lab, guarded, family):
    """Our end is the guarded one, the kernel the other."""
    net, file = lab.two_path(), make_file(SIZE // 3)
    getattr(net, guarded).nft(DROP_INVALID)
    ours = guarded == "server"
    server = net.server.spawn_http(file.root, mptcp=not ours, **({"wrap": shim(), "congestion": None} if ours else {}))
    with Watch(net) as seen:
        got = curl(net.client, server.url(file.name, family=family), wrap=["mptcpize", "run"] if ours else shim("-v"))
    assert got.sha256 == file.sha256
    for device in "eth0", "eth1":
        assert seen.moved(net.client, device) > file.size * 0.1, got.told


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("guarded", ["client", "server"])
def test_a_firewall_that_begins_to_drop_what_it_calls_invalid(routed, guarded, family):
    """At our end; connection tracking begins with it. Segments that it does not see would make it call the flow invalid."""
    ours = {"wrap": ["mptcpize", "run"], "serve": {"mptcp": False, "wrap": shim(), "congestion": None}} if guarded == "server" else {}
    moved, got = upload_over_a_change(routed, family, lambda: getattr(routed, guarded).nft(DROP_INVALID), **ours)
    assert moved > SIZE * 0.1, got.told


def test_rp_filter_that_becomes_strict(routed):
    """The kernel drops from then on what comes in over the second path: a fresh subflow there hears it all the same."""
    routed.link[0].set(rate="20M")                   # what is left after the change takes longer than noticing it
    moved, got = upload_over_a_change(routed, 4, lambda: routed.client.sysctl({"ipv4/conf/all/rp_filter": 1}))
    assert moved > SIZE * 0.1, got.told
