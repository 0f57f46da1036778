"""Programs whose threads have stacks of 16 KB, PTHREAD_STACK_MIN: each call runs on one of its own."""
import os
from pathlib import Path

import pytest

BUILD = Path(__file__).resolve().parents[2] / os.environ.get("B", "build")
MPTCP_RUN, PROGRAM = BUILD / "mptcp-run", BUILD / "tests/shim_small_stack"
HOSTS = ("inside", "helper")
ENOUGH = 6500  # bytes that a call may take more than the kernel's


def run(net, engine, first, **env):
    wrap = [MPTCP_RUN, "-v", f"--engine={engine}"] if engine else []
    done = net.client.run([*wrap, PROGRAM, "10.10.1.1", "7101", "7190", first], env=env, timeout=40, check=False)
    assert done.returncode == 0, (engine, done.returncode, done.stdout, done.stderr)
    told = [line for line in done.stderr.splitlines() if line.startswith("mptcp-run:")]
    taken = [line.split(": ") for line in done.stderr.splitlines() if line not in told]
    return done.stdout, told, [(name, int(n)) for name, n in taken]


@pytest.mark.parametrize("first", ["nothing", "refused", "nonblocking", "mptcp-socket", "listen"])
def test_all_calls_fit_into_a_small_stack(net, first):
    """Whichever call is the first, and loads or starts the engine."""
    bare, _, _ = run(net, None, first)
    assert "connect 0\n" in bare and "accept 1\n" in bare
    for engine in HOSTS:
        out, told, _ = run(net, engine, first)
        assert out == bare, (engine, told)
        assert sum("connected, MPTCP" in line for line in told) >= 3 and not any("kernel TCP" in line for line in told), told


def test_calls_take_little_stack(net):
    """Symbols bound before: binding one takes 3 KB, of any program's library."""
    _, _, bare = run(net, None, "nothing", LD_BIND_NOW="1")
    for engine in HOSTS:
        _, _, taken = run(net, engine, "nothing", LD_BIND_NOW="1")
        more = {name: n - k for (name, n), (_, k) in zip(taken, bare)}
        assert max(more.values()) <= ENOUGH, more
