"""Sends one command to a running linkem: python3 -m lab.control SOCKET set 0 both loss=0.01"""

import os
import socket
import sys


def main():
    path, *words = sys.argv[1:]
    own = f"{path}.{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as control:
        control.bind(own)
        try:
            control.settimeout(2)
            control.sendto(" ".join(words).encode(), path)
            answer = control.recv(65536).decode()
        finally:
            os.unlink(own)
    print(answer, end="")
    return answer.startswith("error")


if __name__ == "__main__":
    sys.exit(main())
