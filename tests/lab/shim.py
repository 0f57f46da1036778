"""Programs under mptcp-run in the lab, and what can be seen of them from outside.

    got = curl(lab.client, server.url(file.name), wrap=shim("-v"))
    assert got.sha256 == file.sha256
    with Watch(lab) as seen: ...
    assert seen.mptcp(lab.server, "MPJoinAckRx") == 1
"""

import hashlib
import json
import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from .host import PYTHON
from .netns import processes

ROOT = Path(__file__).resolve().parents[2]
MPTCP_RUN = ROOT / os.environ.get("B", "build") / "mptcp-run"
KERNEL = ("mptcpize", "run")

# Counters of the kernel's MPTCP that say that something went wrong.
BAD = ("Fallback", "CsumErr", "Csum_Err", "DataCsum", "MPRst", "MPFail", "MPFastclose", "NoDSS", "DSSNotMatching", "DSSCorruption",
       "DSSFallback", "DSSReset", "HMac", "HMAC", "OFOMerge_", "RcvPruned", "Infinite")


def shim(*options):
    """The command prefix: mptcp-run with these options."""
    return [MPTCP_RUN, *options]


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") \
            else hashlib.sha256(file.read()).hexdigest()


@dataclass
class Curl:
    """What curl said at its end; told holds mptcp-run's lines too."""
    said: dict
    status: int
    told: str
    sha256: str = ""

    @property
    def mbit_s(self):
        moved = max(self.said["size_download"], self.said["size_upload"])
        return moved * 8e-6 / self.said["time_total"]


class CurlRun:
    """A curl under way: result() waits for its end."""

    def __init__(self, host, url, wrap=(), put=None, options=(), env=None, timeout=60):
        self.host, self.url, self.timeout, self.put = host, url, timeout, put
        self.out = Path(host.scratch("curl-"), "got")
        os.chmod(self.out.parent, 0o777)                # other users run curl too
        command = [*wrap, "curl", "-sS", "-o", self.out, "-w", "%{json}\n", "--max-time", str(timeout), *options]
        command += ["-T", str(getattr(put, "path", put))] if put else []
        self.process = host.popen([*command, url], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE)

    def size(self):
        """Bytes written to the file so far."""
        return self.out.stat().st_size if self.out.exists() else 0

    def wait_for(self, size, timeout=20):
        """Until so many bytes have come."""
        end = time.monotonic() + timeout
        while self.size() < size and self.process.poll() is None:
            if time.monotonic() > end:
                raise TimeoutError(f"{self.size()} of {size} bytes")
            time.sleep(0.01)

    def result(self, check=True):
        try:
            said, told = self.process.communicate(timeout=self.timeout + 10)   # apart: curl says it in pieces, between which lines of -v may come
        finally:
            self.host.stop(self.process)
        if not said or check and self.process.returncode:
            raise RuntimeError(f"curl {self.url}: exit {self.process.returncode}\n{told}")
        return Curl(json.loads(said), self.process.returncode, told.rstrip("\n"), self._digest())

    def _digest(self):
        if not self.out.exists():
            return ""
        if self.put:                                   # the lab's server answers with what it got
            found = re.search(r'"sha256": "(\w+)"', self.out.read_text())
            return found[1] if found else ""
        return sha256(self.out)


def curl(host, url, check=True, **options):
    """Runs curl in a host to its end. wrap: as for start_fetch(); put: a file to upload."""
    return CurlRun(host, url, **options).result(check)


class Watch:
    """Counters of all hosts over a block: differences, by host and name."""

    def __init__(self, lab):
        self.hosts = list(lab.hosts.values())

    def __enter__(self):
        self._before = {host.role: (host.nstat(), host.traffic()) for host in self.hosts}
        return self

    def __exit__(self, *exc):
        self._diff = {host.role: self._since(host) for host in self.hosts}

    def _since(self, host):
        counters, traffic = self._before[host.role]
        now, moved = host.nstat(), host.traffic()
        return ({key: value - counters.get(key, 0) for key, value in now.items()},
                {name: (rx - traffic[name][0], tx - traffic[name][1]) for name, (rx, tx) in moved.items()})

    def counter(self, host, name):
        return self._diff[host.role][0].get(name, 0)

    def mptcp(self, host, name):
        """One of the kernel's MPTCP counters: seen.mptcp(server, "MPJoinAckRx")."""
        return self.counter(host, "MPTcpExt" + name)

    def bad(self, host):
        """The MPTCP counters that should be zero and are not."""
        return {name[8:]: value for name, value in self._diff[host.role][0].items()
                if value > 0 and name.startswith("MPTcpExt") and any(word in name for word in BAD)}

    def resets(self, host):
        """RSTs that the host's kernel sent."""
        return self.counter(host, "TcpOutRsts")

    def moved(self, host, device):
        """Bytes that came and went through an interface, headers included."""
        return sum(self._diff[host.role][1][device])

    def nonzero(self, host, words=("MPTcpExt", "Rst")):
        return {name: value for name, value in self._diff[host.role][0].items()
                if value and any(word in name for word in words)}


def engines(host):
    """Pids of the helpers that run in a host."""
    return [pid for pid in processes(host.ns) if "mpshim-engine" in _name(pid) and _has_sockets(pid)]


def _has_sockets(pid):
    """A helper's starters, which it forks itself away from, have none. They may still be there when it serves already."""
    try:
        return any(os.readlink(fd).startswith("socket:") for fd in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def keepers(host):
    """Pids of those that start a helper again."""
    return [pid for pid in processes(host.ns) if _name(pid) == "mpshim-keeper"]


def _name(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
    except OSError:
        return ""


def spawn_http_server(host, root, wrap=(), port=8000, bind="::"):
    """Starts `python3 -m http.server`, which knows nothing of MPTCP."""
    process = host.popen([*wrap, PYTHON, "-m", "http.server", str(port), "--bind", bind, "--directory", root],
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return host._serving(process, host.wait_listening(port), port)
