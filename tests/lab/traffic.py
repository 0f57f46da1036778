"""Files to transfer, and transfers that are measured."""

import functools
import hashlib
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from .host import HERE, PYTHON, parse_last_json

FETCH = HERE / "fetch.py"


@dataclass(frozen=True)
class TestFile:
    """A file with reproducible contents."""
    path: Path
    size: int
    sha256: str

    @property
    def name(self):
        return self.path.name

    @property
    def root(self):
        """The directory for a server to serve."""
        return self.path.parent

    __test__ = False                                  # not a test class, pytest


@functools.cache
def _directory():
    _directory.keep = tempfile.TemporaryDirectory(prefix="mpl-files-")
    Path(_directory.keep.name).chmod(0o755)
    return Path(_directory.keep.name)


@functools.cache
def make_file(size, seed=0):
    """A file of `size` bytes drawn from `seed`; made once per process."""
    path = _directory() / f"{size}-{seed}.bin"
    digest, block = hashlib.sha256(), 1 << 20
    with path.open("wb") as file:
        for offset in range(0, size, block):
            data = hashlib.shake_128(f"{seed}:{offset}".encode()).digest(min(block, size - offset))
            digest.update(data)
            file.write(data)
    return TestFile(path, size, digest.hexdigest())


@dataclass
class Transfer:
    """What fetch.py said, and the bytes that passed each interface meanwhile."""
    said: dict
    received: dict = field(default_factory=dict)       # by interface, headers included
    sent: dict = field(default_factory=dict)

    def __getattr__(self, name):
        try:
            return self.__dict__["said"][name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def error(self):
        return self.said.get("error")

    @property
    def mbit_s(self):
        return self.said["bytes"] * 8e-6 / self.said["seconds"]


class Running:
    """A transfer under way: result() waits for its end."""

    def __init__(self, host, command, env, timeout):
        self.host, self.timeout = host, timeout
        self.before = host.traffic()
        self.process = host.popen(command, env=env, stdout=-1, stderr=-1)

    def wait_for(self, size, timeout=20):
        """Until so many bytes went through the host's interfaces: the transfer is under way, however long its start took."""
        end = time.monotonic() + timeout
        while (moved := self._moved()) < size and self.process.poll() is None:
            if time.monotonic() > end:
                raise TimeoutError(f"{moved} of {size} bytes")
            time.sleep(0.01)

    def _moved(self):
        return sum(n for way in self._bytes_since() for name, n in way.items() if name != "lo")

    def result(self, check=True):
        try:
            out, err = self.process.communicate(timeout=self.timeout)
        finally:
            self.host.stop(self.process)
        if not out.strip():
            raise RuntimeError(f"transfer: exit {self.process.returncode}: {err}")
        transfer = Transfer(parse_last_json(out), *self._bytes_since())
        if check and transfer.error:
            raise RuntimeError(f"transfer: {transfer.said}\n{err}")
        return transfer

    def _bytes_since(self):
        after = self.host.traffic()
        both = {name: (after[name][0] - rx, after[name][1] - tx) for name, (rx, tx) in self.before.items()}
        return {name: rx for name, (rx, _) in both.items()}, {name: tx for name, (_, tx) in both.items()}


def start_fetch(host, url, put=None, mptcp=False, wrap=(), env=None, congestion="cubic",
                digest=True, timeout=60, rcvbuf=None):
    """Starts a download (or the upload of a file) in a host; returns it as Running.

    mptcp: by a kernel MPTCP socket. wrap: a command to run the client under, such
    as ["mptcp-run"]; env: variables for it, such as LD_PRELOAD.
    """
    command = [*wrap, PYTHON, FETCH, url, "--timeout", str(timeout)]
    command += ["--put", str(getattr(put, "path", put))] if put else []
    command += ["--mptcp"] * bool(mptcp) + ["--no-digest"] * (not digest)
    command += ["--congestion", congestion] if congestion else []
    command += ["--rcvbuf", str(rcvbuf)] if rcvbuf else []
    return Running(host, command, env, timeout + 10)


def download(host, url, check=True, **options):
    """Runs start_fetch() to its end; a Transfer: .seconds, .mbit_s, .longest_gap_s, .sha256, .received."""
    return start_fetch(host, url, **options).result(check)


def upload(host, url, file, check=True, **options):
    """The same for an upload; gaps and SHA-256 are the server's, seconds the client's."""
    return start_fetch(host, url, put=file, **options).result(check)
