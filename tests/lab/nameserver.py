"""A tiny DNS server for tests: python3 nameserver.py ADDRESS[,ADDRESS] LOG NAME=IP[,IP]...

Answers A and AAAA questions over UDP; a name that is not listed does not exist. Each question is a line in LOG:
the address that was asked, who asked, and the name.
"""

import ipaddress
import select
import socket
import struct
import sys


def question(packet):
    """(name, type, end of the question)"""
    labels, at = [], 12
    while packet[at]:
        labels.append(packet[at + 1:at + 1 + packet[at]].decode())
        at += 1 + packet[at]
    return ".".join(labels).lower(), struct.unpack_from("!H", packet, at + 1)[0], at + 5


def answer(packet, names):
    name, kind, end = question(packet)
    found = [ipaddress.ip_address(ip) for ip in names.get(name, [])]
    records = [ip.packed for ip in found if kind == {4: 1, 6: 28}[ip.version]]
    flags = 0x8580 | (0 if name in names else 3)                    # authoritative answer; NXDOMAIN
    head = packet[:2] + struct.pack("!HHHHH", flags, 1, len(records), 0, 0)
    return head + packet[12:end] + b"".join(struct.pack("!HHHIH", 0xc00c, kind, 1, 60, len(r)) + r for r in records)


def main():
    addresses, log, *listed = sys.argv[1:]
    names = {name: ips.split(",") for name, ips in (item.split("=") for item in listed)}
    sockets = {}
    for address in addresses.split(","):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind((address, 53))
        sockets[s] = address
    print("ready", flush=True)
    with open(log, "a", buffering=1) as out:
        while True:
            for s in select.select(list(sockets), [], [])[0]:
                packet, peer = s.recvfrom(4096)
                print(sockets[s], peer[0], question(packet)[0], file=out)
                s.sendto(answer(packet, names), peer)


if __name__ == "__main__":
    main()
