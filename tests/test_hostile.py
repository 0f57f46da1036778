"""The real engine behind middleboxes, with the kernel's MPTCP, or itself, as the peer (lab/boxes.py has the rows).

The whole matrix is `make matrix-lab`; here each box is met once with the kernel as server and once as client.
"""

import os

import pytest

from lab import bench, boxes

pytestmark = pytest.mark.needs("mptcpize")


@pytest.fixture(scope="module")
def arena():
    if os.geteuid():
        pytest.skip("needs root, to make network namespaces")
    if not os.path.exists("/proc/sys/net/mptcp"):
        pytest.skip("needs a kernel with MPTCP")
    with boxes.Arena() as made:
        yield made


@pytest.mark.parametrize("cell", boxes.moderate_cells(), ids=str)
def test_the_stream_arrives_whole_in_time(arena, cell):
    if boxes.known(cell):
        pytest.skip(boxes.known(cell))
    verdict = arena.run(cell)
    assert verdict.outcome != "failed", str(verdict)


@pytest.mark.parametrize("mid", [False, True], ids=["start", "mid"])
@pytest.mark.parametrize("role, up", [("client", False), ("server", True), ("both", False), ("both", True)])
def test_changed_payload_arrives_whole_over_the_other_path(arena, role, up, mid):
    """The bench has the time (6-payload, 2.5 s); here it is only that of a transfer that goes on."""
    make = {"client": bench.our_client, "server": bench.our_server, "both": bench.both_ours}[role]
    run = bench.payload_run(make("--checksum=on"), up, mid)
    assert not run.fault
    assert run.seconds < 10
