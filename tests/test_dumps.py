"""Keys of connections (RFC 8684 3.1: who knows them can take part) stay out of core dumps and of forked children."""

import re
import signal
import time
from pathlib import Path

import pytest

from lab import make_file
from lab.shim import MPTCP_RUN, shim

pytestmark = pytest.mark.needs("tcpdump")
PYTHON = "/usr/bin/python3"
CORES = Path("/proc/sys/kernel/core_pattern").read_text().strip()

PROGRAM = """
import os, resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_CORE, (-1, -1))
os.chdir(sys.argv[1])
s = socket.create_connection(("10.10.1.1", 8000))
s.sendall(b"GET /%s HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n" % sys.argv[2].encode())
got = 0
while got < 200_000: got += len(s.recv(65536))
time.sleep(0.3)
if sys.argv[3] == "child" and os.fork(): os.wait(); os._exit(0)
os.abort()
"""


def keys_in(pcap):
    """Both ends' keys, from MP_CAPABLE of the third ACK or the first data."""
    found = re.search(rb"\x1e[\x14\x16\x18]\x01.(.{8})(.{8})", pcap.read_bytes(), re.S)
    return found.groups()


@pytest.mark.skipif(CORES not in ("core", "core.%p"), reason=f"core dumps go elsewhere: {CORES}")
@pytest.mark.parametrize("who", ["itself", "child"])
def test_a_programs_core_dump_has_no_keys(lab, tmp_path, who):
    net, file = lab.two_path(families="v4"), make_file(200_000)
    net.server.spawn_http(file.root)
    with net.client.capture("eth0", tmp_path / "pcap"):
        done = net.client.run(shim("-v", "--engine=inside", PYTHON, "-c", PROGRAM, tmp_path, file.name, who), check=False)
    assert "MPTCP over eth0" in done.stderr
    (core,) = tmp_path.glob("core*")
    core, keys = core.read_bytes(), keys_in(tmp_path / "pcap")
    assert b"GET /" in core                                # a dump of the program it is
    for key in keys:
        assert key not in core and key[::-1] not in core   # as on the wire, as in memory


@pytest.mark.skipif(CORES not in ("core", "core.%p"), reason=f"core dumps go elsewhere: {CORES}")
def test_the_helper_leaves_no_core_dump(lab, tmp_path):
    net = lab.two_path(families="v4")
    tmp_path.chmod(0o700)
    engine = MPTCP_RUN.resolve().parent / "mpshim-engine"
    process = net.client.popen(["sh", "-c", f"ulimit -c unlimited; cd {tmp_path}; exec {engine} --foreground --ctl {tmp_path}/ctl"])
    end = time.monotonic() + 20
    while not (tmp_path / "ctl").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGABRT)
    process.wait(10)
    assert {path.name for path in tmp_path.iterdir()} == {"ctl", "ctl.lock"}
