"""What the small programs of these tests begin with."""
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from far import *  # the ports

FAR, FAR6, NEAR, NEAR6 = "10.10.1.1", "fd00:10:1::1", "10.10.1.2", "fd00:10:1::2"
NOBODY = 4          # a port where nobody listens
WORD = os.environ["WORD"].encode()  # another one each run
libc = ctypes.CDLL(None, use_errno=True)


def name(e):
    return errno.errorcode[e] if e else 0


def err(f, *args):
    """What the call returns, or the name of its error."""
    try:
        return f(*args)
    except TimeoutError as e:
        return name(e.errno) or "timeout"
    except OSError as e:
        return name(e.errno)


def dial(port, timeout=10):
    s = socket.create_connection((FAR, port), timeout)
    s.settimeout(None)
    return s


def events(mask):
    """The names of a poll() or epoll mask, sorted."""
    names = "IN PRI OUT ERR HUP RDHUP"
    return " ".join(n for n in names.split() if mask & getattr(select, "EPOLL" + n))


def wait(condition, seconds=10):
    """Polls until the condition holds; its last value."""
    end = time.monotonic() + seconds
    while not (v := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return v


def ioctl_int(s, request):
    return struct.unpack("i", fcntl.ioctl(s.fileno(), request, b"\0" * 4))[0]


def come(s, n):
    """Waits until n bytes can be read."""
    return wait(lambda: ioctl_int(s, termios.FIONREAD) == n)


def over(s, event=0):
    """Waits until both directions have ended, or a reset has come; with POLLRDHUP, until the peer's has."""
    p = select.poll()
    p.register(s, event)
    return bool(p.poll(10000))


def listen(family=socket.AF_INET, address=None, port=0, backlog=16):
    s = socket.socket(family)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address if address is not None else "0.0.0.0" if family == socket.AF_INET else "::", port))
    s.listen(backlog)
    return s


def call(listener, do="echo", n=1, to=NEAR):
    """Asks far.py to connect to this listener n times and then do one of its behaviours."""
    u = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM)
    u.sendto(json.dumps([to, listener.getsockname()[1], do, n]).encode(), (FAR6 if ":" in to else FAR, CALLS))


def dial_keep(data=b"", port=KEEP):
    """To a far end that keeps what comes under this run's WORD."""
    s = dial(port)
    s.sendall(WORD + b"\n" + data)
    return s


def kept(seconds=10):
    """What far.py kept under WORD: bytes, their hash, and how they ended; without the word itself."""
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    u.settimeout(0.1)

    def ask():
        u.sendto(json.dumps([WORD.decode()]).encode(), (FAR, CALLS))
        try:
            return u.recv(1000).decode()
        except TimeoutError:
            return ""
    return wait(ask, seconds) or "nothing"


def digest(data):
    return hashlib.sha256(data).hexdigest()[:16]
