"""The real engine behind middleboxes, with the kernel's MPTCP, or itself, as the peer (lab/boxes.py has the rows).

The whole matrix is `make matrix-lab`; here each box is met once with the kernel as server and once as client.
"""

import os

import pytest

from lab import boxes

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
    assert verdict.outcome != "failed", verdict
