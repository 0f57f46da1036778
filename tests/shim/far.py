"""The far end for test_shim_lab.py: behaviours of semantics/far.py, one a port from 7001 on. `far.py DIRECTORY`; prints "ready"."""

import hashlib
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "semantics"))
from far import count, echo, name, reset, serve  # noqa: E402


def keep(s):
    """Keeps length and hash of what came, in the file "kept"."""
    h, n = hashlib.sha256(), 0
    while data := s.recv(65536):
        h.update(data)
        n += len(data)
    with open(os.path.join(sys.argv[1], "kept.new"), "w") as f:
        f.write(f"{n} {h.hexdigest()}")
    os.rename(os.path.join(sys.argv[1], "kept.new"), os.path.join(sys.argv[1], "kept"))


for i, behaviour in enumerate((echo, count, reset, keep, name)):
    serve(7001 + i, behaviour)
print("ready", flush=True)
signal.pause()
