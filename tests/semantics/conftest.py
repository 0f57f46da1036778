"""One micro test a behaviour: a small program runs over kernel TCP first, then over the shim with the engine inside and
in the helper, and must print the same each time; where the text is known, `expect` says it.

    def test_half_close(same):
        same("s = dial(COUNT); s.sendall(b'abc'); s.shutdown(socket.SHUT_WR); print(s.recv(9))", "b'3'")

The programs run on the lab's client; far.py on the server is what they talk to. A program that listens asks far.py by
call() to connect. Each run under the shim must be carried by the engine (carried=True), so that no test passes because
the kernel did the work.
"""
import os
import subprocess
import uuid
from pathlib import Path

import pytest

import lab as lab_package

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MPTCP_RUN = ROOT / os.environ.get("B", "build") / "mptcp-run"
PYTHON = "/usr/bin/python3"
HOSTS = ("inside", "helper")


@pytest.fixture(scope="session")
def net(tmp_path_factory):
    if os.geteuid():
        pytest.skip("needs root, to make network namespaces")
    with lab_package.two_path(direct=True) as made:
        made.dir = tmp_path_factory.mktemp("semantics")
        far = made.server.popen([PYTHON, HERE / "far.py"], stdout=subprocess.PIPE)
        assert far.stdout.readline() == "ready\n"
        yield made


class Same:
    def __init__(self, net):
        self.net = net

    def run(self, code, engine=None, after="", status=0, options=(), env=None, timeout=40):
        """Runs the program: bare, or under mptcp-run. Its output, that of `after` (a bare program that follows it), and
        what mptcp-run said."""
        wrap = [MPTCP_RUN, "-v", f"--engine={engine}", *options] if engine in HOSTS else engine or []
        env = {"PYTHONPATH": HERE, "WORD": uuid.uuid4().hex, **(env or {})}
        done = self.net.client.run([*wrap, PYTHON, "-c", "from near import *\n" + code], env=env, timeout=timeout, check=False)
        told = [line for line in done.stderr.splitlines() if line.startswith("mptcp-run:")]
        assert done.returncode == status, (engine or "kernel", done.returncode, done.stdout, done.stderr)
        if after:
            done.stdout += self.net.client.run([PYTHON, "-c", "from near import *\n" + after], env=env, timeout=timeout).stdout
        return done.stdout, told

    def __call__(self, code, expect=None, carried=True, hosts=HOSTS, like=None, **options):
        """carried: every connection to far is the engine's; False: none is; None: does not matter. like: a wrapper for
        the first run: ["mptcpize", "run"] where MPTCP itself differs from TCP."""
        bare, _ = self.run(code, like, **options)
        if expect is not None:
            assert bare.rstrip("\n") == expect.rstrip("\n"), ("kernel", bare)
        for engine in hosts:
            out, told = self.run(code, engine, **options)
            assert out == bare, (engine, {"kernel": bare, engine: out}, told)
            by_kernel = [line for line in told if "kernel TCP" in line]
            if carried:
                assert told and not by_kernel, (engine, told)
            if carried is False:
                assert by_kernel or not told, (engine, told)
        return bare


@pytest.fixture
def same(net):
    return Same(net)
