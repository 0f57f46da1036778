"""The far end for test_shim_lab.py: one behaviour a port, from 7001 on. `far.py DIRECTORY`; prints "ready"."""

import hashlib
import os
import socket
import sys
import threading
import time

# Kernel MPTCP sockets: a peer without MPTCP is remembered, and the kernel carries what follows.
IPPROTO_MPTCP = 262
RESET = b"\1\0\0\0\0\0\0\0"  # SO_LINGER {1, 0}


def echo(s):
    while data := s.recv(65536):
        s.sendall(data)


def count(s):
    """Answers the number of bytes after the other side's end."""
    n = 0
    while data := s.recv(65536):
        n += len(data)
    s.sendall(str(n).encode())


def reset(s):
    """Sends "partial" and resets at the first byte."""
    s.recv(1)
    s.sendall(b"partial")
    time.sleep(0.05)  # MP_FASTCLOSE may overtake data on another path
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def keep(s):
    """Keeps length and hash of what came, in the file "kept"."""
    h, n = hashlib.sha256(), 0
    while data := s.recv(65536):
        h.update(data)
        n += len(data)
    with open(os.path.join(sys.argv[1], "kept.new"), "w") as f:
        f.write(f"{n} {h.hexdigest()}")
    os.rename(os.path.join(sys.argv[1], "kept.new"), os.path.join(sys.argv[1], "kept"))


def name(s):
    """Says who it sees."""
    s.sendall(s.getpeername()[0].encode())


def serve(port, behaviour):
    listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, IPPROTO_MPTCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("::", port))
    listener.listen(256)

    def one(s):
        try:
            behaviour(s)
        except OSError:
            pass
        s.close()

    def loop():
        while True:
            threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=loop)
    thread.start()
    return thread


threads = [serve(7001 + i, f) for i, f in enumerate((echo, count, reset, keep, name))]
print("ready", flush=True)
threads[0].join()
