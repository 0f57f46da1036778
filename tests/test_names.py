"""Names, when the host's first route is dead: asked again over the other interfaces, and never otherwise."""

import contextlib
import fcntl
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from lab import make_file
from lab.host import HERE, PYTHON
from lab.shim import curl, shim

SERVER = "10.30.0.1"
WEB = ["10.20.2.1", SERVER]
LOOK_UP = "import socket\ntry: print(sorted({a[4][0] for a in socket.getaddrinfo('%s', 80)}))\nexcept socket.gaierror as e: print(e.args[0])"
AGAIN, NO_NAME = -3, -2


@contextlib.contextmanager
def etc_netns():
    """Workers take turns: one makes a directory there while another removes what is empty."""
    with Path(tempfile.gettempdir(), "libmpshim-etc-netns.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Net:
    """Two default routes, a name server behind both, one resolv.conf for the client."""

    def __init__(self, net):
        self.net, self.client = net, net.client
        self.log = Path(net.server.scratch("dns-"), "log")
        process = net.server.popen([PYTHON, HERE / "nameserver.py", SERVER, self.log, f"web.example.test={','.join(WEB)}"],
                                   stdout=subprocess.PIPE)
        assert process.stdout.readline() == "ready\n"
        self.etc = Path("/etc/netns", net.client.ns)                # ip netns exec mounts these over /etc
        with etc_netns():
            self.etc.mkdir(parents=True)
        self.resolv_conf(f"nameserver {SERVER}\nsearch example.test\n")

    def resolv_conf(self, text):
        (self.etc / "resolv.conf").write_text(text + "options timeout:1 attempts:1\n")

    def look_up(self, name, *wrap):
        done = self.client.run([*wrap, PYTHON, "-c", LOOK_UP % name])
        return done.stdout.strip(), done.stderr

    def asked(self):
        """From which of its addresses the client's questions came, by name."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return {(who, name) for _, who, name in lines}


@pytest.fixture
def net(lab):
    made = Net(lab.two_routers(server_addresses=1))
    yield made
    shutil.rmtree(made.etc)
    with etc_netns(), contextlib.suppress(OSError):    # another worker's are there still
        made.etc.parent.rmdir()


def test_an_answer_of_libc_is_left_alone(net):
    assert net.look_up("web.example.test", *shim())[0] == str(WEB)
    assert net.look_up("none.example.test", *shim())[0] == str(NO_NAME)
    assert {who for who, _ in net.asked()} == {net.client.address(0)}


@pytest.mark.parametrize("name", ["web.example.test", "web"])
def test_the_dead_first_route_is_gone_around(net, name):
    net.net.link[0].blackhole()
    assert net.look_up(name)[0] == str(AGAIN)
    found, told = net.look_up(name, *shim("-v"))
    assert found == str(WEB) and f"{name}: name found over eth1" in told
    assert {who for who, _ in net.asked()} == {net.client.address(1)}


def test_a_name_that_exists_nowhere(net):
    net.net.link[0].blackhole()
    start = time.monotonic()
    assert net.look_up("none.example.test", *shim())[0] == str(AGAIN)
    assert time.monotonic() - start < 15


@pytest.mark.parametrize("setting, asks", [("--interfaces=-eth1", False), ("--engine=never", False), ("--engine=inside", True)])
def test_settings_are_heeded(net, setting, asks):
    net.net.link[0].blackhole()
    assert net.look_up("web", *shim(setting))[0] == (str(WEB) if asks else str(AGAIN))
    assert bool(net.asked()) == asks


@pytest.mark.needs("setpriv")
def test_without_privilege(net, tmp_path):
    net.net.link[0].blackhole()
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    assert net.look_up("web", *nobody, *shim())[0] == str(WEB)


def test_gethostbyname(net):
    net.net.link[0].blackhole()
    code = "import socket; print(socket.gethostbyname_ex('web'), socket.gethostbyname('web') in %r)" % WEB
    out = net.client.run([*shim(), PYTHON, "-c", code]).stdout
    assert out.startswith("('web") and all(ip in out for ip in WEB) and out.endswith("True\n")


def test_no_question_leaves_beside_a_tunnel(net):
    """A VPN carries the default route: its death is no reason to tell the names to the network below."""
    client = net.client
    client.ip("tuntap", "add", "vpn0", "mode", "tun")
    client.ip("addr", "add", "10.99.0.1/24", "dev", "vpn0")
    client.ip("link", "set", "vpn0", "up")
    client.ip("route", "add", f"{SERVER}/32", "dev", "vpn0")
    assert net.look_up("web", *shim())[0] == str(AGAIN)
    assert not net.log.exists() or not net.asked()


@pytest.mark.needs("curl", "mptcpize")
def test_curl_by_name(net):
    file = make_file(300_000)
    server = net.net.server.spawn_http(file.root)
    net.net.link[0].blackhole()
    got = curl(net.client, f"http://web.example.test:{server.port}/{file.name}", wrap=shim("-v"), timeout=40)
    assert got.sha256 == file.sha256, got.told
