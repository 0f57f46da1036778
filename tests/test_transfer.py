"""Unmodified programs over two paths: the hash is right, the kernel's counters show the join and nothing bad."""

import time

import pytest

from lab import make_file
from lab.shim import KERNEL, Watch, curl, engines, shim, spawn_http_server

MB = 1_000_000
SIZE = 8 * MB
pytestmark = pytest.mark.needs("curl", "mptcpize")


def kernel_python(host, root):
    return spawn_http_server(host, root, KERNEL)


def kernel_nginx(host, root):
    return host.spawn_nginx(root)


def kernel_httpd(host, root):
    return host.spawn_http(root)


def shim_python(host, root):
    return spawn_http_server(host, root, shim())


def shim_nginx(host, root):
    return host.spawn_nginx(root, wrap=shim())


def shim_nginx_workers(host, root):
    return host.spawn_nginx(root, wrap=shim(), workers=2)


def shim_httpd(host, root):
    return host.spawn_http(root, mptcp=False, wrap=shim(), congestion=None)


def fetch_over_two_paths(net, serve, wrap, family=4, up=False, size=SIZE):
    """One transfer, checked for all that holds in every role; returns its Watch."""
    file = make_file(size)
    server = serve(net.server, file.root)
    with Watch(net) as seen:
        got = curl(net.client, server.url("put" if up else file.name, family=family), wrap=wrap, put=file if up else None)
    assert got.sha256 == file.sha256, got.told
    for host in net.client, net.server:
        assert not seen.bad(host), (host, seen.bad(host))
    for device in "eth0", "eth1":
        assert seen.moved(net.client, device) > size * 0.1, (device, got.told, seen.nonzero(net.client))
    return seen


def families(family):
    return {4: "v4", 6: "v6"}[family]


# -- client: curl under mptcp-run, the kernel's MPTCP at the other end

@pytest.mark.parametrize("serve", [kernel_python, kernel_nginx], ids=["python", "nginx"])
def test_curl_downloads_from_a_kernel_server(lab, serve):
    net = lab.two_path(families="v4")
    seen = fetch_over_two_paths(net, serve, shim())
    assert seen.mptcp(net.server, "MPCapableACKRX") == 1
    assert seen.mptcp(net.server, "MPJoinAckRx") >= 1


def test_curl_downloads_over_ipv6(lab):
    net = lab.two_path(families="v6")
    seen = fetch_over_two_paths(net, kernel_httpd, shim(), family=6)
    assert seen.mptcp(net.server, "MPJoinAckRx") >= 1


def test_curl_uploads_to_a_kernel_server(lab):
    net = lab.two_path(families="v4")
    seen = fetch_over_two_paths(net, kernel_httpd, shim(), up=True)
    assert seen.mptcp(net.server, "MPJoinAckRx") >= 1


def test_checksums_can_be_off(lab):
    fetch_over_two_paths(lab.two_path(families="v4"), kernel_httpd, shim("--checksum=off"))


@pytest.mark.parametrize("cc", ["lia", "cubic", "reno"])
def test_each_congestion_control_carries(lab, cc):
    fetch_over_two_paths(lab.two_path(families="v4"), kernel_httpd, shim(f"--cc={cc}"))


@pytest.mark.parametrize("io", ["raw", "fast"])
def test_each_io_carries(lab, io):
    fetch_over_two_paths(lab.two_path(families="v4"), kernel_httpd, shim(f"--io={io}"))


def test_the_helper_carries_for_a_client(lab):
    net = lab.two_path(families="v4")
    fetch_over_two_paths(net, kernel_httpd, shim("--engine=helper"))
    assert len(engines(net.client)) == 1


def test_one_connection_over_both_families(lab):
    """The first path speaks IPv4, the second IPv6 only."""
    net = lab.two_path()
    for host in net.client, net.server:
        host.ip("addr", "del", f"{host.address(1)}/24", "dev", "eth1")
    net.server.ip("mptcp", "endpoint", "flush")
    net.server.ip("mptcp", "endpoint", "add", net.server.address(1, 6), "dev", "eth1", "signal")
    seen = fetch_over_two_paths(net, kernel_httpd, shim())
    assert seen.mptcp(net.server, "MPJoinAckRx") >= 1


# -- server under mptcp-run, the kernel's MPTCP at the client

@pytest.mark.parametrize("serve", [shim_python, shim_nginx, shim_nginx_workers], ids=["python", "nginx", "nginx-2-workers"])
def test_a_server_serves_a_kernel_client(lab, serve):
    net = lab.two_path(families="v4")
    seen = fetch_over_two_paths(net, serve, KERNEL)
    assert seen.mptcp(net.client, "MPCapableSYNACKRX") == 1
    assert seen.mptcp(net.client, "MPJoinSynAckRx") >= 1


def test_a_server_serves_a_kernel_client_over_ipv6(lab):
    net = lab.two_path(families="v6")
    seen = fetch_over_two_paths(net, shim_python, KERNEL, family=6)
    assert seen.mptcp(net.client, "MPJoinSynAckRx") >= 1


def test_a_server_takes_an_upload_of_a_kernel_client(lab):
    net = lab.two_path(families="v4")
    fetch_over_two_paths(net, shim_httpd, KERNEL, up=True)


def test_a_server_with_both_families_serves_a_kernel_client(two_path):
    """The kernel takes one ADD_ADDR at a time, and joins only from the family of the connection."""
    fetch_over_two_paths(two_path, shim_httpd, KERNEL)


# -- both ends ours

@pytest.mark.parametrize("up", [False, True], ids=["down", "up"])
@pytest.mark.parametrize("family", [4, 6])
def test_shim_to_shim(lab, family, up):
    net = lab.two_path(families=families(family), kernel_mptcp=False)
    fetch_over_two_paths(net, shim_httpd, shim(), family=family, up=up)


def test_shim_to_shim_with_both_families(lab):
    fetch_over_two_paths(lab.two_path(kernel_mptcp=False), shim_httpd, shim())


# -- and no trace

def test_kernels_send_no_resets(lab):
    """Not meanwhile, and not for what comes after the client's end."""
    net = lab.two_path(families="v4")
    file = make_file(SIZE)
    server = shim_httpd(net.server, file.root)
    with Watch(net) as seen:
        for _ in range(3):
            assert curl(net.client, server.url(file.name), wrap=shim()).sha256 == file.sha256
        time.sleep(1)
    assert (seen.resets(net.client), seen.resets(net.server)) == (0, 0)


def test_no_firewall_or_routing_rule_is_made(lab):
    net = lab.two_path(families="v4")
    file = make_file(SIZE)

    def rules():
        return [[host.run(["nft", "list", "ruleset"]).stdout, host.ip("rule"), host.ip("route", "show", "table", "all")]
                for host in (net.client, net.server)]

    before = rules()
    server = shim_httpd(net.server, file.root)
    assert curl(net.client, server.url(file.name), wrap=shim()).sha256 == file.sha256
    assert rules() == before
