"""Floods of SYNs: what they may keep, and whom they keep out (RFC 4987)."""

import json
import os
import select
import socket
import struct
import subprocess
import time
from pathlib import Path

import pytest

from lab import make_file
from lab.shim import KERNEL, MPTCP_RUN, Watch, curl, engines, shim

MB = 1_000_000
SIZE = 3 * MB
pytestmark = pytest.mark.needs("curl", "mptcpize")


def _sum16(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def spoofed_syn(source, target, port, number):
    """An IPv4 packet: a SYN with MSS, timestamps and MP_CAPABLE from an address that nobody has."""
    options = bytes.fromhex("020405b4 0402 080a 00000001 00000000 01 030307 1e040101".replace(" ", ""))
    head = struct.pack("!HHIIBBHHH", 1024 + number % 60000, port, number * 7919, 0, (20 + len(options)) // 4 << 4, 2, 65535, 0, 0)
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    check = _sum16(ends + struct.pack("!HH", 6, len(head) + len(options)) + head + options)
    tcp = head[:16] + struct.pack("!H", check) + head[18:] + options
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + ends + tcp


def flood(client, target, port, count):
    with client.inside():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    for number in range(count):
        raw.sendto(spoofed_syn(f"198.18.{number >> 8 & 255}.{number & 255}", target, port, number), (target, 0))
    raw.close()


def resident(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("wrap", [(), KERNEL], ids=["plain", "mptcp"])
def test_a_server_that_keeps_nothing_of_a_syn(two_path, wrap):
    file = make_file(SIZE)
    server = two_path.server.spawn_http(file.root, mptcp=False, wrap=shim("--syn-backlog=0"), congestion=None)
    with Watch(two_path) as seen:
        got = curl(two_path.client, server.url(file.name), wrap=wrap)
    assert got.sha256 == file.sha256
    if wrap:
        assert seen.moved(two_path.client, "eth1") > SIZE * 0.1 and not seen.bad(two_path.client)


def test_a_flood_of_syns_keeps_nobody_out_and_little_memory(two_path):
    net, file = two_path, make_file(SIZE)
    server = net.server.spawn_http(file.root, mptcp=False, wrap=shim(), congestion=None)
    assert curl(net.client, server.url(file.name)).sha256 == file.sha256
    pid, = engines(net.server)
    net.server.ip("route", "add", "198.18.0.0/15", "via", net.client.address(0))   # whence the SYNs say they come
    before = resident(pid)
    for _ in range(4):
        flood(net.client, net.server.address(0), 8000, 3000)
        got = curl(net.client, server.url(file.name), wrap=KERNEL)
        assert got.sha256 == file.sha256
        print("connected after", got.said["time_connect"])
    print("kept:", resident(pid) - before)
    assert resident(pid) - before < 8 * MB


def test_what_a_program_does_not_accept_is_bounded_and_nothing_is_lost(two_path):
    """Those that the engine opened wait for room in the listener's backlog; the others come up when the program accepts again."""
    net = two_path
    code = """
import socket, sys
l = socket.create_server(("0.0.0.0", 7100), backlog=5); print("ready", flush=True)
sys.stdin.readline()
while True:
    s = l.accept()[0]; s.sendall(s.recv(1)); s.close()
"""
    program = net.server.popen([*shim(), "/usr/bin/python3", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert program.stdout.readline() == "ready\n"
    with net.client.inside():
        many = {one.fileno(): one for one in (socket.socket() for _ in range(400))}
    ready, sent, answered, go_on = select.epoll(), set(), set(), time.monotonic() + 3
    for number, one in many.items():
        one.setblocking(False)
        one.connect_ex((net.server.address(), 7100))
        ready.register(number, select.EPOLLOUT)
    while len(answered) < len(many):
        for number, _ in ready.poll(0.2):
            if number not in sent:
                sent.add(number)
                os.write(number, b"x")
                ready.modify(number, select.EPOLLIN)
            elif number not in answered:
                assert os.read(number, 1) == b"x"
                answered.add(number)
                ready.unregister(number)
        if go_on and time.monotonic() > go_on:
            [engine] = json.loads(net.server.run([MPTCP_RUN.parent / "mptcp-stat", "--json", "--interval=0"]).stdout)
            assert 100 < engine["total_accepts"] < 200 and engine["counters"]["backlog_full"] > 0 and not answered, engine["counters"]
            program.stdin.write("go on\n")
            program.stdin.flush()
            go_on, end = 0, time.monotonic() + 60
        assert go_on or time.monotonic() < end, len(answered)
    net.server.stop(program)
