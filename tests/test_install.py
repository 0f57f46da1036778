"""An installed tree, and a user who is not root: the helper has the file capabilities, his programs have none."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from lab import make_file
from lab.shim import ROOT, CurlRun, Watch, curl, engines

MB = 1_000_000
UID = 65534
USER = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
pytestmark = [pytest.mark.needs("curl", "mptcpize", "setpriv", "setcap"), pytest.mark.xdist_group("package")]


@pytest.fixture(scope="module")
def installed():
    """`make install` into a prefix that every user can read."""
    if os.geteuid():
        pytest.skip("needs root, to give file capabilities")
    tree = Path(tempfile.mkdtemp(prefix="mpshim-installed-"))
    tree.chmod(0o755)
    dirs = [f"bindir={tree}/bin", f"libdir={tree}/lib", f"includedir={tree}/include", f"mandir={tree}/share/man",
            f"datadir={tree}/share", f"prefix={tree}"]
    made = subprocess.run(["make", "-s", "-C", ROOT, "install", *dirs], capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    yield tree
    shutil.rmtree(tree)


def capabilities(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff")), 16)


def fetch(net, server, file, tree, *options, family=4, check=True):
    return curl(net.client, server.url(file.name, family=family), wrap=[*USER, tree / "bin/mptcp-run", *options], check=check, timeout=20)


@pytest.fixture
def served(lab):
    net = lab.two_path(rate="50M")
    file = make_file(8 * MB)
    return net, net.server.spawn_http(file.root), file


def test_a_user_downloads_over_two_paths(served, installed):
    net, server, file = served
    with Watch(net) as seen:
        got = fetch(net, server, file, installed, "-v")
    assert got.sha256 == file.sha256 and "multipath over" in got.told, got.told
    assert not seen.bad(net.client) and not seen.bad(net.server)
    for device in "eth0", "eth1":
        assert seen.moved(net.client, device) > 0.1 * file.path.stat().st_size


def test_another_users_runtime_directory(served, installed, tmp_path):
    """As after su, which leaves the first user's XDG_RUNTIME_DIR in the environment."""
    net, server, file = served
    tmp_path.chmod(0o700)
    wrap = [*USER, "env", f"XDG_RUNTIME_DIR={tmp_path}", installed / "bin/mptcp-run", "-v"]
    got = curl(net.client, server.url(file.name), wrap=wrap, timeout=20)
    assert got.sha256 == file.sha256 and "connected, MPTCP over" in got.told, got.told



def test_the_program_gets_neither_capability_nor_raw_socket(served, installed):
    net, server, file = served
    code = ("import os,socket\n"
            f"s=socket.create_connection(('{net.server.address()}', {server.port})); s.sendall(b'GET /size/1 HTTP/1.0\\r\\n\\r\\n'); s.recv(10)\n"
            "for fd in os.listdir('/proc/self/fd'):\n"
            "  try: t=socket.socket(fileno=int(fd)); print('type', t.type); t.detach()\n"
            "  except OSError: pass\n"
            "print(open('/proc/self/status').read(), flush=True); os.system('sleep 0.3')\n")
    done = net.client.run([*USER, installed / "bin/mptcp-run", "-v", "/usr/bin/python3", "-c", code])
    assert "MPTCP over" in done.stderr
    assert "SOCK_RAW" not in done.stdout and "type" in done.stdout
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith(("CapEff", "CapPrm"))] == ["0" * 16] * 2
    (helper,) = engines(net.client)
    assert capabilities(helper) == 1 << 12 | 1 << 13           # CAP_NET_ADMIN, CAP_NET_RAW
    assert f"Uid:\t{UID}" in Path(f"/proc/{helper}/status").read_text()


def rule(net, expression):
    net.client.nft(f"table inet t {{ chain c {{ type filter hook output priority 0; {expression} }}; }}")


@pytest.mark.needs("nft")
@pytest.mark.parametrize("family", [4, 6])
def test_the_users_firewall_rules_apply_to_a_path(served, installed, family):
    net, server, file = served
    rule(net, f"meta skuid {UID} oifname eth1 tcp dport {server.port} drop;")
    with Watch(net) as seen:
        got = fetch(net, server, file, installed, family=family)
    assert got.sha256 == file.sha256
    assert seen.moved(net.client, "eth1") < 20_000
    assert seen.mptcp(net.server, "MPJoinSynRx") == 0


@pytest.mark.needs("nft")
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("device", ["eth0", "eth1"])
def test_a_rule_for_the_user_that_comes_in_mid_connection(served, installed, device, family):
    """Nothing of the user's leaves there any more; the stream goes on over the other path."""
    net, server, file = served
    running = CurlRun(net.client, server.url(file.name, family=family), wrap=[*USER, installed / "bin/mptcp-run", "-v"], timeout=30)
    running.wait_for(file.size // 4)
    with net.slowly():
        rule(net, f"meta skuid {UID} oifname {device} tcp dport {server.port} drop;")
        before = net.client.traffic()[device][1]
        running.wait_for(file.size // 3)
    got = running.result()
    assert got.sha256 == file.sha256 and "multipath over" in got.told, got.told
    assert net.client.traffic()[device][1] - before < 1000       # neighbours are asked


@pytest.mark.needs("nft")
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("verdict", ["drop", "reject"])
def test_a_user_who_may_not_connect_cannot(served, installed, verdict, family):
    net, server, file = served
    rule(net, f"meta skuid {UID} tcp dport {server.port} {verdict};")
    url = server.url(file.name, family=family)
    with Watch(net) as seen:
        got = curl(net.client, url, wrap=[*USER, installed / "bin/mptcp-run"], check=False, timeout=3)
    assert got.status in (7, 28)
    assert seen.counter(net.server, "TcpPassiveOpens") == 0
    root = curl(net.client, url, wrap=[installed / "bin/mptcp-run", "-v"])
    assert root.sha256 == file.sha256


def test_the_helper_checks_for_a_user_and_strict_believes_it(served, installed):
    net, server, file = served
    done = net.client.run([*USER, installed / "bin/mptcp-run", "--check"])
    assert "raw sockets: allowed" in done.stdout and "MISSING" not in done.stdout
    assert fetch(net, server, file, installed, "--strict").sha256 == file.sha256
    done = net.client.run([*USER, installed / "bin/mptcp-run", "--check", "--interfaces=-eth1"], check=False)
    assert done.returncode == 1 and "eth1: not used" in done.stdout
