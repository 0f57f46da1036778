"""One end of a VPN: a tun device whose packets travel in UDP datagrams that bear a mark, as WireGuard's do.

    vpn.py DEVICE LOCAL PEER PORT MARK

The device goes with the program.
"""

import fcntl
import os
import select
import socket
import struct
import sys

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


def main():
    device, local, peer, port, mark = sys.argv[1:]
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, int(mark))
        udp.bind((local, int(port)))
        udp.connect((peer, int(port)))
        print("ready", flush=True)
        while True:
            for fd in select.select([tun, udp], [], [])[0]:
                try:
                    if fd is udp:
                        os.write(tun, udp.recv(65536))
                    else:
                        udp.send(os.read(tun, 65536))
                except (ConnectionRefusedError, OSError) as error:
                    if fd is tun and not isinstance(error, ConnectionRefusedError):
                        raise


if __name__ == "__main__":
    main()
