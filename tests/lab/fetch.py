#!/usr/bin/python3
"""An HTTP client that is also a stall meter; prints one line of JSON.

    fetch.py http://10.10.1.1:8000/size/1000000
    fetch.py --put FILE http://10.10.1.1:8000/x

bytes, seconds (from connect to the last byte), connect_s, first_byte_s, sha256,
longest_gap_s and gap_at_s (where it began), cpu_s of this process without its
start. An upload has the server's view of the gap. "error" is set if the transfer failed.
"""

import argparse
import hashlib
import json
import os
import resource
import socket
import sys
import time
from urllib.parse import urlsplit

from httpd import CHUNK, IPPROTO_MPTCP, Meter, read_body, read_head


def connect(url, options):
    infos = socket.getaddrinfo(url.hostname, url.port or 80, type=socket.SOCK_STREAM)
    family, _, _, _, address = infos[0]
    connection = socket.socket(family, socket.SOCK_STREAM, IPPROTO_MPTCP if options.mptcp else 0)
    if options.congestion:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, options.congestion.encode())
    if options.rcvbuf:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options.rcvbuf)
    connection.settimeout(options.timeout)
    connection.connect(address)
    return connection


def get(connection, url, options, result):
    connection.sendall(f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: close\r\n\r\n".encode())
    digest, meter = None if options.no_digest else hashlib.sha256(), Meter()
    with connection.makefile("rb", buffering=CHUNK) as reader:
        status, headers = read_head(reader)
        length = int(headers.get("content-length", -1)) if status else -1
        try:
            complete = read_body(reader, length if length >= 0 else None, meter, digest)
        finally:
            result.update(status=status, **meter.result())
    if digest:
        result["sha256"] = digest.hexdigest()
    if not complete:
        result["error"] = "truncated"


def put(connection, url, options, result):
    size = os.path.getsize(options.put)
    connection.sendall(f"PUT {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Length: {size}\r\n"
                       "Connection: close\r\n\r\n".encode())
    start = time.monotonic()
    with open(options.put, "rb") as file:
        connection.sendfile(file)
    with connection.makefile("rb") as reader:
        status, headers = read_head(reader)
        result.update(json.loads(reader.read(int(headers["content-length"]))), status=status)
    result["seconds"] = time.monotonic() - start


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--put", metavar="FILE")
    parser.add_argument("--mptcp", action="store_true", help="ask the kernel for an MPTCP socket")
    parser.add_argument("--congestion", help="set TCP_CONGESTION")
    parser.add_argument("--rcvbuf", type=int, help="set SO_RCVBUF, bytes")
    parser.add_argument("--timeout", type=float, default=60, help="of each socket call")
    parser.add_argument("--no-digest", action="store_true")
    options = parser.parse_args()
    url, result, start, cpu_at_start = urlsplit(options.url), {}, time.monotonic(), cpu_seconds()
    try:
        with connect(url, options) as connection:
            result["connect_s"] = time.monotonic() - start
            (put if options.put else get)(connection, url, options, result)
    except (OSError, TypeError, KeyError) as error:
        result["error"] = repr(error)
    result["cpu_s"] = cpu_seconds() - cpu_at_start
    result["total_s"] = time.monotonic() - start
    print(json.dumps(result))
    return "error" in result


if __name__ == "__main__":
    sys.exit(main())
