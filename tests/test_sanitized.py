"""The engine built with ASan and UBSan, as the helper of both ends, carries what the others' tests do: unit and simulation
programs have core/ under the sanitizers, here are engine/ and io/, with real sockets, links and clocks."""

import fcntl
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from lab import make_file, start_fetch
from lab.shim import ROOT, curl, shim

MB = 1_000_000
CONFIG = ROOT / "build/config.mk"


@pytest.fixture(scope="module")
def program():
    """mpshim-engine with sanitizers, made unless it is up to date; one test worker at a time."""
    if not CONFIG.exists() or "HAVE_ASAN = 1" not in CONFIG.read_text():
        pytest.skip("the compiler has no sanitizers")
    made = ROOT / "build/asan/mpshim-engine"
    with Path(tempfile.gettempdir(), "libmpshim-asan.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        env = {name: value for name, value in os.environ.items() if "MAKE" not in name and name not in ("MFLAGS", "B")}
        subprocess.run(["make", "-s", "-C", ROOT, "ASAN=1", "build/asan/mpshim-engine"], env=env, check=True, stdout=subprocess.DEVNULL)
    return made


class Helper:
    """One that runs in the foreground on a socket of its own, until it has had nothing to do for a second."""

    def __init__(self, host, program, directory):
        directory.mkdir(mode=0o700)
        self.control, self.said = directory / "ctl", directory / "said"
        env = {"ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=1", "UBSAN_OPTIONS": "print_stacktrace=1"}
        with self.said.open("w") as said:
            self.process = host.popen([program, "--foreground", "-v", "--ctl", self.control, "--idle", "1"], env=env, stderr=said)
        end = time.monotonic() + 60
        while not self.control.exists():
            assert self.process.poll() is None and time.monotonic() < end, self.said.read_text()
            time.sleep(0.01)

    def wrap(self, *options):
        return shim("-v", "--engine=helper", f"--control={self.control}", "--time-wait-s=1", *options)

    def end(self):
        """It ends for want of work, and nothing was wrong until then."""
        status, said = self.process.wait(60), self.said.read_text()
        assert status == 0 and not re.search(r"ERROR: \w+Sanitizer|runtime error", said), said


@pytest.mark.parametrize("options", [[], ["--checksum=on", "--scheduler=redundant"]], ids=["default", "checksum-redundant"])
def test_a_sanitized_engine_carries_transfers_through_failures(lab, program, tmp_path, options):
    net, file = lab.two_path(), make_file(8 * MB)
    client, server = Helper(net.client, program, tmp_path / "client"), Helper(net.server, program, tmp_path / "server")
    with net.server.spawn_http(file.root, mptcp=False, wrap=server.wrap(*options), congestion=None) as http:
        near = {"wrap": client.wrap(*options), "congestion": None, "timeout": 60}
        down = start_fetch(net.client, http.url(file.name), **near)
        down.wait_for(MB)
        net.link[0].blackhole()
        time.sleep(0.5)
        net.link[0].blackhole(False)
        assert down.result().sha256 == file.sha256
        up = start_fetch(net.client, http.url("x", family=6), put=file, **near)
        up.wait_for(MB)
        net.client.link_down(1)
        time.sleep(0.5)
        net.client.link_up(1)
        assert up.result().sha256 == file.sha256
        cut = net.client.popen([*client.wrap(*options), "curl", "-sS", "-o", "/dev/null", http.url(file.name)])
        time.sleep(0.3)
        cut.kill()                                     # its connection is reset in the middle
        cut.wait(10)
        many = [net.client.popen([*client.wrap(*options), "curl", "-sSf", "-o", "/dev/null", "-r", f"{i}-{i + 20000}", http.url(file.name)])
                for i in range(20)]
        assert [p.wait(60) for p in many] == [0] * 20
        got = curl(net.client, http.url(file.name, index=1), wrap=client.wrap(*options))
        assert got.sha256 == file.sha256 and "connected, MPTCP" in got.told
    client.end()
    server.end()
