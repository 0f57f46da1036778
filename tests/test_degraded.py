"""Where something is missing the program still runs, on plain TCP, and mptcp-run says what is missing."""

import fcntl
import subprocess
import time

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


@pytest.mark.parametrize("engine", ["auto", "helper"])
def test_with_lo_down_under_a_running_helper(net, engine):
    fetch(net, shim("--engine=helper"))
    net.client.ip("link", "set", "lo", "down")
    assert "loopback" in fetch(net, shim("-v", f"--engine={engine}")).told
    net.client.ip("link", "set", "lo", "up")
    assert "MPTCP over eth0" in fetch(net, shim("-v", f"--engine={engine}")).told


def test_a_program_goes_on_when_lo_goes_down_and_comes_back(net):
    """Its engine lives inside it: asked at each connection."""
    code = """
import socket, sys
for line in sys.stdin:
    s = socket.create_connection(("10.10.1.1", 8000), 10); s.close(); print("connected", flush=True)
"""
    p = net.client.popen(shim("-v", "--engine=inside", "/usr/bin/python3", "-c", code), stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for state in "up", "down", "up":
        net.client.ip("link", "set", "lo", state)
        p.stdin.write("again\n")
        p.stdin.flush()
        assert p.stdout.readline() == "connected\n"
    _, told = p.communicate(timeout=20)
    assert told.count("kernel TCP: the loopback interface is down") == 1
    assert told.count("connected, MPTCP over eth0") == 2


@pytest.mark.parametrize("engine", ["inside", "helper"])
def test_a_server_with_lo_down_serves_on_kernel_tcp(net, engine):
    net.server.ip("link", "set", "lo", "down")
    server = net.server.spawn_http(net.file.root, port=8001, mptcp=False, wrap=shim(f"--engine={engine}"), congestion=None)
    assert curl(net.client, server.url(net.file.name), timeout=20).sha256 == net.file.sha256


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
    env = {f"MPSHIM_{name}": value, "LD_PRELOAD": MPTCP_RUN.resolve().parent / "libmpshim.so"}
    fetch(net, (), env=env)
    got = fetch(net, (), env={**env, "MPSHIM_VERBOSE": "1"})
    assert got.told.count(f"MPSHIM_{name}={value}: not possible; possible: ") == 1
    assert "MPTCP over eth0" in got.told


def test_a_broken_setting_is_told_once(net):
    done = net.client.run(shim("-v", "sh", "-c", "true; sh -c 'env; true'"), env={"MPSHIM_CC": "nonsense", "MPSHIM_CHECKSUM": "0"})
    assert done.stderr.count("MPSHIM_CC=nonsense") == 1
    assert "MPSHIM_CC" not in done.stdout and "MPSHIM_CHECKSUM=0" in done.stdout


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


def test_check_tells_everything_in_spite_of_several_faults(net):
    net.client.ip("link", "set", "lo", "down")
    net.client.ip("link", "set", "eth1", "down")
    status, said = check(net, *NOBODY)
    assert status == 1
    for what in ("CAP_NET_RAW", "CAP_NET_ADMIN", "ip link set lo up", "ip link set eth1 up", "eth0: a path: 10.10.1.2/24",
                 "rp_filter", "MISSING 1 path", "connection tracking", "kernel: Linux", "packet sockets"):
        assert what in said, said


def test_check_heeds_settings(net):
    status, said = check(net)
    assert status == 0
    done = net.client.run(shim("--check", "--interfaces=-eth1"), check=False)
    assert done.returncode == 1 and "eth1: not used: excluded by the user" in done.stdout


def test_check_names_interfaces_that_are_not_here(net):
    done = net.client.run(shim("--check", "--interfaces=ethO,wwan0", "--backup=wwan0"), check=False)
    assert done.returncode == 1 and "ethO: named by --interfaces, not here" in done.stdout and "wwan0: named by --backup" in done.stdout
    done = net.client.run(shim("--strict", "--interfaces=ethO", "true"), check=False)
    assert done.returncode == 125 and "MISSING 0 paths (--interfaces=ethO)" in done.stderr


def test_a_list_of_interfaces_may_have_blanks(net):
    """As people write lists, in a file above all."""
    done = net.client.run(shim("--check", "--interfaces=eth0, eth1"), check=False)
    assert done.returncode == 0 and "2 paths" in done.stdout
    assert net.client.run(shim("--check", "--interfaces= -eth1 ,-lo"), check=False).returncode == 1


def test_check_of_a_host_without_ipv4(lab):
    status, said = check(lab.two_path(direct=True, families="v6"))
    assert status == 0 and "ip -6 route add default via GATEWAY dev eth1" in said and "rp_filter" not in said, said


def test_check_names_gateways(lab):
    _, said = check(lab.two_routers())
    assert said.count("default route via 10.") == 2


def test_check_names_a_policy_rule(lab):
    net = lab.two_routers()
    assert "policy rule's" not in check(net)[1]
    net.client.ip("route", "add", "default", "dev", "eth1", "table", "77")
    net.client.ip("rule", "add", "lookup", "77", "pref", "100")
    assert "policy rule's (eth1)" in check(net)[1]


def test_check_names_connection_tracking(net):
    assert "connection tracking: not active" in check(net)[1]
    net.client.nft("table inet t { chain c { type filter hook output priority 0; ct state invalid drop; }; }")
    fetch(net, ())
    assert "connection tracking: active" in check(net)[1]


def test_check_names_strict_rp_filter(lab):
    net = lab.two_routers(rp_filter=1)
    _, said = check(net)
    assert "rp_filter" in said and "->" in said


def test_excluded_interfaces_carry_nothing(net):
    with Watch(net) as seen:
        fetch(net, shim("--interfaces=-eth1"))
    assert seen.moved(net.client, "eth1") < 1000


# -- what -v tells at the end

def test_a_path_whose_join_was_refused_is_not_told(net):
    net.server.run(["ip", "mptcp", "limits", "set", "subflows", "0", "add_addr_accepted", "0"])
    told = fetch(net, shim("-v")).told
    assert "MPTCP over eth0 (10.10.1.2)" in told and "eth1" not in told


@pytest.mark.parametrize("kill", [False, True])
def test_the_helper_tells_the_last_line_with_all_bytes(lab, kill):
    """The program ends before its data has left: the line waits a moment for the connection's end."""
    net = lab.two_path(families="v4", rate="20M", delay="10ms")
    file = make_file(SIZE)
    server = net.server.spawn_http(file.root)
    end = "os.kill(os.getpid(), 9)" if kill else "os._exit(0)"
    code = f"""
import os, socket, time
s = socket.create_connection(("10.10.1.1", {server.port}))
s.sendall(b"GET / HTTP/1.0\\r\\n" + b"x: " + b"y" * 200000 + b"\\r\\n\\r\\n"); {end}
"""
    done = net.client.run(shim("-v", "--engine=helper", "--interfaces=eth0", "/usr/bin/python3", "-c", code), check=False)
    last = done.stderr.splitlines()[-1]
    assert "200.0 kB sent" in last, done.stderr


# -- files of helpers that were killed

def helper(tmp_path, name="ctl-77", idle=1):
    tmp_path.chmod(0o700)
    engine = MPTCP_RUN.resolve().parent / "mpshim-engine"
    return [engine, "--foreground", "--ctl", tmp_path / name, "--idle", idle]


def test_a_helper_removes_what_killed_ones_left(net, tmp_path):
    for name in "ctl-1", "ctl-1.lock", "ctl-2", "ctl-2.lock", "ctl-x.lock", "note.lock":
        (tmp_path / name).touch()
    with open(tmp_path / "ctl-2.lock") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        net.client.run(helper(tmp_path), timeout=20)
    assert {path.name for path in tmp_path.iterdir()} == {"ctl-2", "ctl-2.lock", "ctl-x.lock", "note.lock"}


def test_a_helper_takes_the_place_of_a_killed_one(net, tmp_path):
    first = net.client.popen(helper(tmp_path, idle=60))
    wait_for(lambda: (tmp_path / "ctl-77").exists())
    first.kill()
    first.wait(10)
    assert (tmp_path / "ctl-77").exists()
    net.client.run(helper(tmp_path), timeout=20)
    assert not list(tmp_path.iterdir())


def test_one_of_many_helpers_serves(net, tmp_path):
    """Started at once on one socket: one serves, the others leave at once, and nothing stays behind."""
    started = [net.client.popen(helper(tmp_path)) for _ in range(8)]
    assert all(process.wait(20) == 0 for process in started)
    assert not list(tmp_path.iterdir())


def wait_for(what, timeout=20):
    end = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)
