"""The far end of these tests: one behaviour a port. Prints "ready"."""
import hashlib
import itertools
import json
import os
import select
import socket
import struct
import threading
import time

# Kernel MPTCP sockets: a peer without MPTCP is remembered, and the kernel carries what follows.
IPPROTO_MPTCP = 262
RST = b"\1\0\0\0\0\0\0\0"  # SO_LINGER {1, 0}
NAMES = "ECHO COUNT RESET KEEP NAME STALL SLOW BYE RSTNOW EOF SOURCE SINKSLOW WAITBYE TALKKEEP STEP".split()
ECHO, COUNT, RESET, KEEP, NAME, STALL, SLOW, BYE, RSTNOW, EOF, SOURCE, SINKSLOW, WAITBYE, TALKKEEP, STEP = range(7101, 7101 + len(NAMES))
CALLS = 7190  # UDP: see near.call() and near.kept()
ALONE = range(7200, 7240)  # echo, then count: each for one connection, whose packets a test counts (near.py does not know them)
ALONE_COUNT = range(7240, 7250)
kept = {}


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
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)


def keep(s):
    """The first line is a word; length and hash of what follows and the way it ended are kept under it."""
    word = b""
    while not word.endswith(b"\n"):
        word += s.recv(1)
    h, n, end = hashlib.sha256(), 0, "end"
    try:
        while data := s.recv(65536):
            h.update(data)
            n += len(data)
    except OSError as e:
        end = os.strerror(e.errno)
    kept[word.decode().strip()] = f"{n} {h.hexdigest()[:16]} {end}"


def name(s):
    """Says who it sees."""
    s.sendall(s.getpeername()[0].encode())


def stall(s):
    """Reads nothing until the other side has gone."""
    p = select.poll()
    p.register(s, select.POLLERR | select.POLLHUP)
    p.poll(20000)


def slow(s):
    """At each byte: ten digits, in two pieces 0.1 s apart."""
    while s.recv(1):
        s.sendall(b"01234")
        time.sleep(0.1)
        s.sendall(b"56789")


def step(s):
    """At each byte the next five of ten digits: nothing more comes unasked, however late the other side looks."""
    pieces = itertools.cycle((b"01234", b"56789"))
    while s.recv(1):
        s.sendall(next(pieces))


def bye(s):
    s.sendall(b"bye")


def rst_now(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)


def eof(s):
    """Ends its direction at once, reads on, and keeps what came."""
    s.shutdown(socket.SHUT_WR)
    keep(s)


def source(s):
    """As many MB as the first four bytes say."""
    n, = struct.unpack("!I", s.recv(4, socket.MSG_WAITALL))
    for i in range(n):
        s.sendall(bytes([i & 255]) * 1000000)


def sink_slow(s):
    """Reads 64 KB every 20 ms, then says how much."""
    n = 0
    while data := s.recv(65536):
        n += len(data)
        time.sleep(0.005)
    s.sendall(str(n).encode())


def wait_bye(s):
    """Ends at the first byte, 0.2 s later."""
    s.recv(1)
    time.sleep(0.2)


def talk_keep(s):
    """Says something, and keeps what came."""
    s.sendall(b"unread")
    keep(s)


BEHAVIOURS = dict(zip(NAMES, (echo, count, reset, keep, name, stall, slow, bye, rst_now, eof, source, sink_slow, wait_bye, talk_keep, step)))


def one(s, behaviour):
    try:
        behaviour(s)
    except OSError:
        pass
    s.close()


def serve(port, behaviour):
    listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, IPPROTO_MPTCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if behaviour is stall:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    listener.bind(("::", port))
    listener.listen(256)

    def loop():
        while True:
            threading.Thread(target=one, args=(listener.accept()[0], behaviour), daemon=True).start()

    threading.Thread(target=loop, daemon=True).start()


def connect(to, port, do, n):
    for _ in range(n):
        s = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
        try:
            s.connect((to, port))
        except OSError:
            continue
        threading.Thread(target=one, args=(s, BEHAVIOURS[do.upper()]), daemon=True).start()


def calls():
    u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    u.bind(("::", CALLS))
    while True:
        text, asker = u.recvfrom(1000)
        what = json.loads(text)
        if len(what) == 1:
            if what[0] in kept:
                u.sendto(kept[what[0]].encode(), asker)
            continue
        if len(what) == 2:
            with socket.socket() as s:
                u.sendto(os.strerror(s.connect_ex(tuple(what))).encode(), asker)
            continue
        threading.Thread(target=connect, args=what, daemon=True).start()


if __name__ == "__main__":
    for i, behaviour in enumerate(BEHAVIOURS.values()):
        serve(ECHO + i, behaviour)
    for ports, behaviour in (ALONE, echo), (ALONE_COUNT, count):
        for port in ports:
            serve(port, behaviour)
    threading.Thread(target=lambda: (print("ready", flush=True))).start()
    calls()
