#!/usr/bin/python3
"""One stream each way over one connection, without any protocol that a changed byte could break.

    stream.py serve PORT FILE              for each connection as asked; prints "ready"
    stream.py get HOST PORT                prints JSON: bytes, sha256, connect_s, seconds, error
    stream.py put HOST PORT FILE           the same, of what the server got

The client asks by one byte: g or p. The end of a stream is its FIN.
"""

import hashlib
import json
import socket
import sys
import threading
import time

IPPROTO_MPTCP = 262
CHUNK = 64 * 1024


def read_all(connection):
    digest, n = hashlib.sha256(), 0
    while data := connection.recv(CHUNK):
        digest.update(data)
        n += len(data)
    return n, digest.hexdigest()


def answer(connection, path):
    try:
        with connection:
            connection.settimeout(60)
            if connection.recv(1) == b"g":
                with open(path, "rb") as file:
                    connection.sendfile(file)
                connection.shutdown(socket.SHUT_WR)
                read_all(connection)
            else:
                connection.sendall(json.dumps(read_all(connection)).encode())
                connection.shutdown(socket.SHUT_WR)
                read_all(connection)
    except OSError:
        pass


def serve(port, path, mptcp):
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM, IPPROTO_MPTCP if mptcp else 0) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::", port))
        listener.listen(64)
        print("ready", flush=True)
        while True:
            threading.Thread(target=answer, args=(listener.accept()[0], path), daemon=True).start()


def ask(host, port, path, mptcp):
    start, said = time.monotonic(), {}
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM, IPPROTO_MPTCP if mptcp else 0) as connection:
            connection.settimeout(30)
            connection.connect((host, port))
            said["connect_s"] = time.monotonic() - start
            connection.sendall(b"p" if path else b"g")
            if path:
                with open(path, "rb") as file:
                    connection.sendfile(file)
                connection.shutdown(socket.SHUT_WR)
                text = b""
                while data := connection.recv(CHUNK):
                    text += data
                said["bytes"], said["sha256"] = json.loads(text)
            else:
                said["bytes"], said["sha256"] = read_all(connection)
    except (OSError, ValueError) as error:
        said["error"] = str(error)
    said["seconds"] = time.monotonic() - start
    print(json.dumps(said))


def main():
    words = [word for word in sys.argv[1:] if word != "--mptcp"]
    mptcp = "--mptcp" in sys.argv
    if words[0] == "serve":
        serve(int(words[1]), words[2], mptcp)
    else:
        ask(words[1], int(words[2]), words[3] if words[0] == "put" else None, mptcp)


if __name__ == "__main__":
    main()
