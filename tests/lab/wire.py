"""The links between hosts: linkem, in a namespace of its own."""

import fcntl
import functools
import json
import os
import subprocess
import tempfile
from pathlib import Path

from . import netns

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "build/tests/linkem"
LOCK = Path(tempfile.gettempdir(), "libmpshim-linkem.lock")


@functools.cache
def build():
    """Makes linkem unless it is up to date, once a process; one test worker at a time."""
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        env = {name: value for name, value in os.environ.items() if "MAKE" not in name and name != "MFLAGS"}
        subprocess.run(["make", "-s", "-C", ROOT, "build/tests/linkem"], env=env, check=True, stdout=subprocess.DEVNULL)
    return PROGRAM


class Link:
    """One emulated link. Direction a2b is from the client's side, b2a to it."""

    def __init__(self, wire, index):
        self.wire, self.index, self.settings = wire, index, {}
        self.devices = f"l{index}a", f"l{index}b"

    def set(self, direction="both", **settings):
        """Changes the link: set(rate="50M", delay="10ms"), set("a2b", loss=0.01).

        Keys: see `linkem`'s help command, or Link.help().
        """
        text = " ".join(f"{key}={_text(value)}" for key, value in settings.items())
        self.wire.command(f"set {self.index} {direction} {text}")
        if direction == "both":
            self.settings.update(settings)

    def hook(self, *boxes, direction="both", **settings):
        """Replaces the list of middleboxes: hook("strip-syn"); hook() for none.

        Settings are for all of them: hook("seq", "a2b", after="200k"), or a box has
        its own: hook("mss,size=700", "merge-any,size=1400,most=1"). See linkem/boxes.c.
        """
        tail = "".join(f",{key}={_text(value)}" for key, value in settings.items())
        self.wire.command(f"hook {self.index} {direction} {' '.join(box + tail for box in boxes)}")

    def blackhole(self, on=True, direction="both"):
        self.set(direction, blackhole=on)

    def carrier(self, on, side="a"):
        """Takes the cable out of (or puts it back into) the host on that side."""
        device = self.devices["ab".index(side)]
        netns.ip("link", "set", device, "up" if on else "down", ns=self.wire.ns)

    def stats(self, direction=None):
        """Counters of both directions, {"a2b": {...}, "b2a": {...}}, or of one."""
        link = self.wire.stats()["links"][self.index]
        both = {name: link[name] for name in ("a2b", "b2a")}
        return both[direction] if direction else both

    def help(self):
        return self.wire.help()


def _text(value):
    return int(value) if isinstance(value, bool) else value


class Wire:
    """The linkem process of one lab. It ends when its stdin closes, with us at the latest."""

    def __init__(self, ns, n_links, control):
        self.ns, self.control = ns, Path(control)
        self.links = [Link(self, i) for i in range(n_links)]
        self.control.unlink(missing_ok=True)
        pairs = [",".join(link.devices) for link in self.links]
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", ns, build(), "-c", self.control, *pairs],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            start_new_session=True)
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError("linkem did not start")

    def command(self, line):
        """Sends one command and returns its answer; an error is raised."""
        self.process.stdin.write(line + "\n")
        answer = self.process.stdout.readline().strip()
        if not answer or answer.startswith("error"):
            raise ValueError(f"linkem: {line!r}: {answer or 'gone'}")
        return answer

    def stats(self):
        return json.loads(self.command("stats"))

    def help(self):
        return json.loads(self.command("help"))

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.control.unlink(missing_ok=True)
