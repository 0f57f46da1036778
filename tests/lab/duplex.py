#!/usr/bin/python3
"""One connection, so many bytes each way at the same time: a large and a small number as in the kernel's simult_flows, or two large ones.

    duplex.py --listen PORT SEND RECEIVE            serves one connection; prints "ready", then a line of JSON
    duplex.py --connect HOST PORT SEND RECEIVE      prints a line of JSON

The end of file follows the last write after JOIN_WAIT, as in the kernel's mptcp_connect -j: Linux refuses joins to a
connection whose program has closed its sending side, and the small direction would be done before the join.
seconds: from connect (or accept) to both ends of file; sha256 of what came; "error" if it failed.
"""

import argparse
import hashlib
import json
import socket
import sys
import threading
import time

CHUNK, IPPROTO_MPTCP, JOIN_WAIT = 65536, 262, 0.4


def stream(role, size):
    """The bytes that one end sends."""
    block = hashlib.shake_128(role.encode()).digest(CHUNK)
    for offset in range(0, size, CHUNK):
        yield block[:min(CHUNK, size - offset)]


def digest(role, size):
    total = hashlib.sha256()
    for block in stream(role, size):
        total.update(block)
    return total.hexdigest()


def send(connection, role, size, result):
    try:
        for block in stream(role, size):
            connection.sendall(block)
        time.sleep(JOIN_WAIT)
        connection.shutdown(socket.SHUT_WR)
    except OSError as error:
        result["error"] = repr(error)


def exchange(connection, role, size, expected):
    result, start, got = {}, time.monotonic(), hashlib.sha256()
    connection.settimeout(60)
    sender = threading.Thread(target=send, args=(connection, role, size, result), daemon=True)
    sender.start()
    try:
        while block := connection.recv(CHUNK):
            got.update(block)
    except OSError as error:
        result["error"] = repr(error)
    sender.join()
    result.update(seconds=time.monotonic() - start)
    if got.hexdigest() != digest("server" if role == "client" else "client", expected):
        result.setdefault("error", "wrong bytes")
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--mptcp", action="store_true", help="ask the kernel for MPTCP sockets")
    parser.add_argument("--listen", action="store_true")
    parser.add_argument("--connect", metavar="HOST")
    parser.add_argument("port", type=int)
    parser.add_argument("send", type=int, help="bytes")
    parser.add_argument("receive", type=int, help="bytes")
    options = parser.parse_args()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP if options.mptcp else 0) as own:
        if options.listen:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            own.bind(("", options.port))
            own.listen(1)
            print("ready", flush=True)
            connection = own.accept()[0]
        else:
            connection = own
            start = time.monotonic()
            connection.connect((options.connect, options.port))
        with connection:
            result = exchange(connection, "server" if options.listen else "client", options.send, options.receive)
        if not options.listen:
            result["seconds"] = time.monotonic() - start
    print(json.dumps(result))
    return "error" in result


if __name__ == "__main__":
    sys.exit(main())
