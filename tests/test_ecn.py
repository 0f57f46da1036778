"""ECN (RFC 3168) with the kernel as the peer and a queue that marks: the bits reach the wire and come from it, by raw and
packet sockets, IPv4 and IPv6."""

import pytest

from lab import make_file
from lab.shim import KERNEL, Watch, curl, shim, spawn_http_server

SIZE = 12_000_000                                    # the first 4 MB of a flow go by raw socket, the rest by packet socket
pytestmark = pytest.mark.needs("curl", "mptcpize")


def marking(lab, family):
    """A lab whose queues mark what finds more than 60 KB before it, and drop at 625 KB."""
    net = lab.two_path(families=f"v{family}")
    for link in net.link:
        link.set(ce="60k")
    return net


def ect(seen, host, family, what):
    return seen.counter(host, f"Ip6In{what}Pkts" if family == 6 else f"IpExtIn{what}Pkts")


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("up", [False, True], ids=["down", "up"])
def test_a_client_offers_ecn_to_a_kernel_server(lab, family, up):
    net, file = marking(lab, family), make_file(SIZE)
    server = net.server.spawn_http(file.root)
    receiver = net.server if up else net.client
    with Watch(net) as seen:
        got = curl(net.client, server.url("put" if up else file.name, family=family), wrap=shim("--ecn=on"), put=file if up else None)
    assert got.sha256 == file.sha256, got.told
    assert ect(seen, receiver, family, "ECT0") > 1000
    assert ect(seen, receiver, family, "CE") > 0
    if not up:                                       # the kernel saw our echoes
        assert seen.counter(net.server, "TcpExtTCPDeliveredCE") > 0


@pytest.mark.parametrize("up", [False, True], ids=["down", "up"])
def test_a_server_accepts_ecn_from_a_kernel_client(lab, up):
    net, file = marking(lab, 4), make_file(SIZE)
    net.client.sysctl({"ipv4/tcp_ecn": 1})
    server = spawn_http_server(net.server, file.root, shim()) if not up else \
        net.server.spawn_http(file.root, mptcp=False, wrap=shim(), congestion=None)
    receiver = net.server if up else net.client
    with Watch(net) as seen:
        got = curl(net.client, server.url("put" if up else file.name), wrap=KERNEL, put=file if up else None)
    assert got.sha256 == file.sha256
    assert ect(seen, receiver, 4, "ECT0") > 1000
    assert ect(seen, receiver, 4, "CE") > 0
    if up:
        assert seen.counter(net.client, "TcpExtTCPDeliveredCE") > 0


def test_by_default_a_client_sends_nothing_ect(lab):
    net, file = marking(lab, 4), make_file(1_000_000)
    server = net.server.spawn_http(file.root)
    with Watch(net) as seen:
        got = curl(net.client, server.url("put"), wrap=shim(), put=file)
    assert got.sha256 == file.sha256
    assert ect(seen, net.server, 4, "ECT0") == 0
