"""Network namespaces: made under names that tell their maker, removed for certain.

A name is mpl-PID-N-HOST: of the process that made it, of its N-th lab. What a
killed process leaves behind is removed by the next one (sweep()).
"""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import time
from pathlib import Path

RUN_DIR = Path("/run/netns")
NAME = re.compile(r"mpl-(\d+)-\d+-\w+")
CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def _setns(fd):
    if _libc.setns(fd, CLONE_NEWNET):
        error = ctypes.get_errno()
        raise OSError(error, f"setns: {os.strerror(error)}")


@contextlib.contextmanager
def inside(name):
    """The calling thread is in this namespace: for sockets and /proc/sys/net.

    /proc/net belongs to the main thread; read /proc/thread-self/net instead.
    """
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(RUN_DIR / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _setns(there)
        yield
    finally:
        _setns(here)
        os.close(here)
        os.close(there)


def ip(*args, ns=None):
    """Runs ip(8), in a namespace, and returns what it printed."""
    return _checked(["ip", *(["-n", ns] if ns else []), *args])


def ip_batch(lines, ns=None):
    """Runs many ip(8) commands in one process."""
    lines = [line for line in lines if line]
    if lines:
        _checked(["ip", *(["-n", ns] if ns else []), "-batch", "-"], "\n".join(lines) + "\n")


def _checked(argv, stdin=None):
    done = subprocess.run(argv, input=stdin, text=True, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}\n{stdin or ''}")
    return done.stdout


def sysctl(name, values):
    """Sets net.* variables: {"ipv4/conf/all/rp_filter": 1}."""
    with inside(name):
        for key, value in values.items():
            Path("/proc/sys/net", key).write_text(str(value))


def create(name):
    ip("netns", "add", name)


def processes(name):
    """Ids of the processes in a namespace."""
    try:
        return [int(pid) for pid in ip("netns", "pids", name).split()]
    except RuntimeError:
        return []


def _still_there(name, seconds):
    end = time.monotonic() + seconds
    while (pids := processes(name)) and time.monotonic() < end:
        time.sleep(0.01)
    return pids


def remove(name):
    """Ends what still runs in the namespace, then removes it."""
    for sig, grace in ((signal.SIGTERM, 0.3), (signal.SIGKILL, 1)):
        pids = processes(name)
        if not pids:
            break
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sig)
        _still_there(name, grace)
    if (RUN_DIR / name).exists():
        ip("netns", "delete", name)


def _is_orphan(name):
    match = NAME.fullmatch(name)
    return match and not Path("/proc", match[1]).exists()


def sweep():
    """Removes namespaces whose maker is gone; returns their names."""
    if not RUN_DIR.is_dir():
        return []
    orphans = [name for name in os.listdir(RUN_DIR) if _is_orphan(name)]
    for name in orphans:
        with contextlib.suppress(RuntimeError):    # another process sweeps too
            remove(name)
    return orphans
