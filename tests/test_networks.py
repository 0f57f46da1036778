"""Networks as they are: routers, NAT, strict rp_filter, firewalls. No ip rule, two paths where two may be used."""

import json

import pytest

from lab import make_file
from lab.shim import KERNEL, Watch, curl, shim

MB = 1_000_000
SIZE = 8 * MB
pytestmark = pytest.mark.needs("curl", "mptcpize")

ROUTED = {
    "plain": {}, "one-server-address": {"server_addresses": 1}, "strict-rp-filter": {"rp_filter": 1},
    "stateful-client": {"firewall": "client"}, "stateful-router": {"firewall": 1},
    "nat-first": {"nat": [0]}, "nat-second": {"nat": [1]}, "nat-both": {"nat": [0, 1]},
}


def serve(net, role, root):
    return net.server.spawn_http(root, mptcp=False, wrap=shim(), congestion=None) if role == "both" else net.server.spawn_http(root)


@pytest.mark.parametrize("role", ["client", "both"])
@pytest.mark.parametrize("network", ROUTED)
def test_two_routers_are_two_paths(lab, network, role):
    net, file = lab.two_routers(**ROUTED[network]), make_file(SIZE)
    server = serve(net, role, file.root)
    with Watch(net) as seen:
        got = curl(net.client, server.url(file.name), wrap=shim("-v"))
    assert got.sha256 == file.sha256
    for device in "eth0", "eth1":
        assert seen.moved(net.client, device) > SIZE * 0.1, got.told


@pytest.mark.parametrize("network", [{"rp_filter": 1}, {"firewall": True}], ids=["strict-rp-filter", "stateful-client"])
def test_separate_subnets_with(lab, network):
    net, file = lab.two_path(families="v4", **network), make_file(SIZE)
    server = serve(net, "client", file.root)
    with Watch(net) as seen:
        got = curl(net.client, server.url(file.name), wrap=shim("-v"))
    assert got.sha256 == file.sha256
    for device in "eth0", "eth1":
        assert seen.moved(net.client, device) > SIZE * 0.1, got.told


# -- firewalls that refuse

REFUSE_OUT = "table inet t { chain o { type filter hook output priority 0; oifname eth1 meta l4proto tcp counter %s; }\n }"
REFUSE_IN = """table inet t { chain i { type filter hook input priority 0;
    iifname %s tcp dport 8000 tcp flags & (syn|ack) == syn counter drop; }\n }"""


def counted(host):
    """Packets that the rules of table t counted."""
    rules = json.loads(host.run(["nft", "-j", "list", "table", "inet", "t"]).stdout)["nftables"]
    return sum(part["counter"]["packets"] for rule in rules if "rule" in rule
               for part in rule["rule"]["expr"] if "counter" in part)


@pytest.mark.parametrize("verdict", ["drop", "reject"])
def test_a_firewall_that_refuses_the_second_path_is_obeyed(lab, verdict):
    net, file = lab.two_path(families="v4"), make_file(SIZE)
    net.client.nft(REFUSE_OUT % verdict)
    server = serve(net, "client", file.root)
    with Watch(net) as seen, net.server.capture("eth1", expression="tcp") as path:
        got = curl(net.client, server.url(file.name), wrap=shim())
    assert got.sha256 == file.sha256
    assert counted(net.client) >= 1
    assert net.server.run(["tcpdump", "-nr", path]).stdout == ""
    assert seen.mptcp(net.server, "MPJoinSynRx") == 0


def test_a_servers_firewall_refuses_joins_on_one_interface(lab):
    net, file = lab.two_path(families="v4"), make_file(SIZE)
    net.server.nft(REFUSE_IN % "eth1")
    server = serve(net, "both", file.root)
    with Watch(net) as seen:
        assert curl(net.client, server.url(file.name), wrap=KERNEL).sha256 == file.sha256
    assert counted(net.server) >= 1
    assert seen.mptcp(net.client, "MPJoinSynAckRx") == 0


ALLOW_ONE = """table inet t { chain o { type filter hook output priority 0; policy drop;
    oifname { lo, %s } accept; meta l4proto icmpv6 accept; meta l4proto tcp counter; }\n }"""
FAR = {4: "10.30.0.1", 6: "fd00:30::1"}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("allowed", ["eth0", "eth1"])
def test_a_firewall_that_allows_one_interface_only(lab, allowed, family):
    """Be it the one that routing prefers or the other: the connection is made where it may be, and stays there."""
    net, file = lab.two_path(), make_file(SIZE)
    net.server.ip_batch([f"addr add {FAR[4]}/32 dev lo", f"addr add {FAR[6]}/128 dev lo nodad"])
    net.client.ip_batch([f"route add default via {via} dev eth{i} metric {100 * i + 100}"
                         for i in (0, 1) for via in (f"10.10.{i + 1}.1", f"fd00:10:{i + 1}::1")])
    net.client.nft(ALLOW_ONE % allowed)
    server = serve(net, "client", file.root)
    other = {"eth0": "eth1", "eth1": "eth0"}[allowed]
    url = server.url(file.name).replace(net.server.address(0), FAR[4] if family == 4 else f"[{FAR[6]}]")
    with net.server.capture(other, expression="tcp") as path:
        got = curl(net.client, url, wrap=shim("-v"))
    assert got.sha256 == file.sha256
    assert f"MPTCP over {allowed}" in got.told
    assert got.said["time_connect"] < 2
    assert counted(net.client) >= 1
    assert net.server.run(["tcpdump", "-nr", path]).stdout == ""


@pytest.mark.parametrize("wrap", [KERNEL, ()], ids=["mptcp", "plain"])
def test_a_closed_port_stays_closed(lab, wrap):
    """The server listens, but its host's firewall lets nobody in."""
    net, file = lab.two_path(families="v4"), make_file(SIZE)
    net.server.nft(REFUSE_IN % "eth0")
    server = serve(net, "both", file.root)
    done = net.client.run([*wrap, "curl", "-sS", "--max-time", "3", server.url(file.name)], check=False)
    assert done.returncode == 28, done.stderr
