"""Where something is missing the program still runs, on plain TCP, and mptcp-run says what is missing."""

import pytest

from lab import make_file
from lab.shim import MPTCP_RUN, Watch, curl, shim

MB = 1_000_000
SIZE = 2 * MB
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
pytestmark = pytest.mark.needs("curl", "setpriv")


@pytest.fixture
def net(lab):
    made = lab.two_path(families="v4")
    made.file = make_file(SIZE)
    made.far = made.server.spawn_http(made.file.root)
    return made


def fetch(net, wrap, **options):
    got = curl(net.client, net.far.url(net.file.name), wrap=wrap, timeout=20, **options)
    assert got.sha256 == net.file.sha256, got.told
    return got


def test_without_privileges(net):
    got = fetch(net, [*NOBODY, *shim("-v")])
    assert "kernel TCP" in got.told and "privilege" in got.told
    assert "CAP_NET_RAW" in got.told


def test_a_server_without_privileges_serves(net):
    server = net.server.spawn_http(net.file.root, port=8001, mptcp=False, wrap=[*NOBODY, *shim()], congestion=None)
    assert curl(net.client, server.url(net.file.name), wrap=shim()).sha256 == net.file.sha256


@pytest.mark.parametrize("engine", ["inside", "helper"])
def test_with_lo_down(net, engine):
    net.client.ip("link", "set", "lo", "down")
    got = fetch(net, shim("-v", f"--engine={engine}"))
    assert "loopback" in got.told


def test_with_lo_down_under_a_running_helper(net):
    fetch(net, shim("--engine=helper"))
    net.client.ip("link", "set", "lo", "down")
    assert "loopback" in fetch(net, shim("-v", "--engine=helper")).told


BROKEN = ["CC=nonsense", "RCVBUF_KB=x", "ENGINE=moon", "CHECKSUM=maybe", "IO=carrier-pigeon"]


@pytest.mark.parametrize("setting", BROKEN)
def test_a_broken_setting_is_told_and_left_out(net, setting):
    name, value = setting.split("=")
    got = fetch(net, shim("-v"), env={f"MPSHIM_{name}": value})
    assert f"MPSHIM_{name}={value}" in got.told
    assert "MPTCP over eth0" in got.told and "received" in got.told


@pytest.mark.parametrize("setting", BROKEN)
def test_a_broken_setting_is_left_out_by_the_library(net, setting):
    name, value = setting.split("=")
    fetch(net, (), env={f"MPSHIM_{name}": value, "LD_PRELOAD": MPTCP_RUN.resolve().parent / "libmpshim.so"})


def test_a_wrong_option_is_refused(net):
    done = net.client.run(shim("--cc=nonsense", "true"), check=False)
    assert done.returncode == 2 and "lia" in done.stderr


def test_without_the_engine_library(net, tmp_path):
    """A broken installation: the shim alone."""
    for name in "mptcp-run", "libmpshim.so":
        (tmp_path / name).write_bytes((MPTCP_RUN.resolve().parent / name).read_bytes())
        (tmp_path / name).chmod(0o755)
    got = fetch(net, [tmp_path / "mptcp-run", "-v"])
    assert "kernel TCP" in got.told and "mpshim-engine" in got.told


def test_exit_status_is_the_commands(net):
    assert net.client.run(shim("sh", "-c", "exit 7"), check=False).returncode == 7
    assert net.client.run(shim("no-such-program"), check=False).returncode == 127


# -- mptcp-run --check

def check(net, *wrap):
    done = net.client.run([*wrap, *shim("--check")], check=False)
    return done.returncode, done.stdout + done.stderr


def test_check_is_content_with_the_lab(net):
    status, said = check(net)
    assert status == 0 and "MISSING" not in said
    for name in "raw sockets", "eth0", "eth1", "2 paths":
        assert name in said


def test_check_names_the_missing_privilege_and_the_rest(net):
    status, said = check(net, *NOBODY)
    assert status == 1
    assert "CAP_NET_RAW" in said and "->" in said
    assert "eth0" in said                              # interfaces, routes are told all the same


def test_check_names_lo_and_the_rest(net):
    net.client.ip("link", "set", "lo", "down")
    status, said = check(net)
    assert status == 1 and "ip link set lo up" in said
    assert "eth0" in said


def test_check_names_strict_rp_filter(lab):
    net = lab.two_routers(rp_filter=1)
    _, said = check(net)
    assert "rp_filter" in said and "->" in said


def test_excluded_interfaces_carry_nothing(net):
    with Watch(net) as seen:
        fetch(net, shim("--interfaces=-eth1"))
    assert seen.moved(net.client, "eth1") < 1000
