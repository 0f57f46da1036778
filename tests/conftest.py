"""Fixtures and marks of the end-to-end tests.

    def test_download(lab):
        net = lab.two_path(rate="20M")          # removed after the test
        ...

    @pytest.mark.timing                         # asserts times or rates: runs alone
    def test_failover(two_path): ...
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

import pytest

import lab as lab_package

os.environ["PYTHONUNBUFFERED"] = "1"  # programs that end by os._exit() have said what they had to say
os.umask(0o022)  # other users' programs use what tests make, whatever umask the caller has

TIMING_LOCK = Path(tempfile.gettempdir(), "libmpshim-timing.lock")


def pytest_configure(config):
    config.addinivalue_line("markers", "timing: asserts times or rates; one at a time on this machine")
    config.addinivalue_line("markers", "needs(program, ...): skipped where one of the programs is missing")


def pytest_collection_modifyitems(items):
    """With xdist's --dist loadgroup all timing tests go to one worker."""
    for item in items:
        if item.get_closest_marker("timing"):
            item.add_marker(pytest.mark.xdist_group("timing"))


@pytest.fixture(autouse=True)
def _needs(request):
    for mark in request.node.iter_markers("needs"):
        missing = [program for program in mark.args if not shutil.which(program)]
        if missing:
            pytest.skip("needs " + ", ".join(missing))


@pytest.fixture(autouse=True)
def _alone(request):
    """Timing tests take turns, among all workers and all test runs of the machine."""
    if not request.node.get_closest_marker("timing"):
        yield
        return
    with TIMING_LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """made_once(name, make): the path of what make(path) made, once for all workers of this run."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def get(name, make):
        done = base / name
        with (base / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                make(base / f"{name}.part")
                (base / f"{name}.part").rename(done)
        return done

    return get


class LabFactory:
    """Builds labs for one test: lab.two_path(...), lab.two_routers(...)."""

    def __init__(self, stack):
        self._stack = stack

    def two_path(self, **options):
        return self._stack.enter_context(lab_package.two_path(**options))

    def two_routers(self, **options):
        return self._stack.enter_context(lab_package.two_routers(**options))


@pytest.fixture
def lab():
    """A maker of labs, which are removed after the test."""
    if os.geteuid():
        pytest.skip("needs root, to make network namespaces")
    with contextlib.ExitStack() as stack:
        yield LabFactory(stack)


@pytest.fixture
def two_path(lab):
    """The default lab: two paths of 50 Mbit/s and 20 ms round trip."""
    return lab.two_path()


@pytest.fixture
def two_routers(lab):
    """Two default routes by two routers, a server with two addresses."""
    return lab.two_routers()
