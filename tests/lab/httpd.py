#!/usr/bin/python3
"""A small HTTP server for the lab: a thread a connection, keep-alive.

GET /NAME       a file below --root
GET /size/N     N bytes, made up (zeros, for throughput)
PUT /ANYTHING   reads the body; answers JSON: sha256, bytes, seconds, longest_gap_s

With --mptcp it listens on a kernel MPTCP socket. Prints "ready" when it listens.
"""

import argparse
import hashlib
import json
import os
import re
import socket
import sys
import threading
import time

IPPROTO_MPTCP = 262
CHUNK = 256 * 1024


class Meter:
    """Bytes, duration and the longest time without any, of one transfer."""

    def __init__(self):
        self.start = self.last = time.monotonic()
        self.bytes, self.gap, self.gap_at = 0, 0.0, 0.0
        self.first = None

    def add(self, n):
        now = time.monotonic()
        if now - self.last > self.gap:
            self.gap, self.gap_at = now - self.last, self.last - self.start
        if self.first is None:
            self.first = now
        self.last = now
        self.bytes += n

    def result(self):
        """seconds count from the start to the last byte; gap_at_s is when the gap began."""
        return {"bytes": self.bytes, "seconds": self.last - self.start,
                "first_byte_s": (self.first or self.last) - self.start,
                "longest_gap_s": self.gap, "gap_at_s": self.gap_at}


def read_head(reader):
    """Request or status line and headers (lower case); None at the end."""
    first = reader.readline().decode("latin-1").strip()
    if not first:
        return None, {}
    headers = {}
    while (line := reader.readline().decode("latin-1").strip()):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return first, headers


def read_body(reader, length, meter, digest):
    """Reads a body (to the end if length is None) through readinto1: what is there, at once."""
    buffer = memoryview(bytearray(CHUNK))
    left = length
    while left is None or left > 0:
        n = reader.readinto1(buffer if left is None else buffer[:min(CHUNK, left)])
        if not n:
            break
        meter.add(n)
        if digest:
            digest.update(buffer[:n])
        left = None if left is None else left - n
    return left in (None, 0)


def send_head(connection, status, length):
    connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n".encode())


def answer_put(connection, reader, headers):
    length, digest, meter = int(headers["content-length"]), hashlib.sha256(), Meter()
    if headers.get("expect") == "100-continue":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    if not read_body(reader, length, meter, digest):
        return False
    body = json.dumps({"sha256": digest.hexdigest(), **meter.result()}).encode() + b"\n"
    send_head(connection, "201 Created", len(body))
    connection.sendall(body)
    return True


def answer_size(connection, size):
    send_head(connection, "200 OK", size)
    zeros = memoryview(bytes(CHUNK))
    while size:
        size -= connection.send(zeros[:min(size, CHUNK)])


def answer_file(connection, root, path):
    full = os.path.join(root, path.lstrip("/"))
    if ".." in path or not os.path.isfile(full):
        send_head(connection, "404 Not Found", 0)
        return
    with open(full, "rb") as file:
        send_head(connection, "200 OK", os.fstat(file.fileno()).st_size)
        connection.sendfile(file)


def answer_get(connection, root, path):
    size = re.fullmatch(r"/size/(\d+)", path)
    if size:
        answer_size(connection, int(size[1]))
    else:
        answer_file(connection, root, path)


def serve_one(connection, reader, root):
    """Answers one request; false if the connection is to end."""
    request, headers = read_head(reader)
    if not request:
        return False
    words = request.split()
    if len(words) != 3:
        send_head(connection, "400 Bad Request", 0)
        return False
    method, path, version = words
    if method == "PUT":
        if not headers.get("content-length", "").isdigit():     # a box that changes bytes, and a peer without checksums
            send_head(connection, "411 Length Required", 0)
            return False
        return answer_put(connection, reader, headers)
    if method != "GET":
        send_head(connection, "405 Method Not Allowed", 0)
        return True
    answer_get(connection, root, path)
    return headers.get("connection", "keep-alive" if version == "HTTP/1.1" else "close").lower() == "keep-alive"


def serve_connection(connection, root):
    with connection, connection.makefile("rb", buffering=CHUNK) as reader:
        try:
            while serve_one(connection, reader, root):
                pass
        except OSError:
            pass


def listen(options):
    family = socket.AF_INET6 if ":" in options.bind else socket.AF_INET
    protocol = IPPROTO_MPTCP if options.mptcp else 0
    listener = socket.socket(family, socket.SOCK_STREAM, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    if options.congestion:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, options.congestion.encode())
    listener.bind((options.bind, options.port))
    listener.listen(256)
    return listener


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bind", default="::")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--root", default=".")
    parser.add_argument("--mptcp", action="store_true")
    parser.add_argument("--congestion")
    options = parser.parse_args()
    listener = listen(options)
    print("ready", flush=True)
    sys.stdout.close()
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve_connection, args=(connection, options.root), daemon=True).start()


if __name__ == "__main__":
    main()
