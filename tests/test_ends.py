"""How connections and listeners end, as a peer across a path with delay sees it."""

import subprocess

import pytest

from lab.host import PYTHON
from lab.shim import KERNEL, shim

pytestmark = pytest.mark.needs("mptcpize")


@pytest.mark.parametrize("engine", ["inside", "helper"])
def test_a_listener_opened_again_has_who_came_to_the_one_before(lab, engine):
    """iperf3 does so between two tests. The client's SYN is answered, and its listener is another one when its ACK comes."""
    net = lab.two_path(families="v4", delay="100ms")
    server = net.server.popen([*shim(f"--engine={engine}"), PYTHON, "-u", "-c", """
import socket, sys
def listen(): return socket.create_server(("0.0.0.0", 7400))
l = listen(); print("ready"); sys.stdin.readline()
l.close(); l = listen(); l.settimeout(5)
s, _ = l.accept(); print(s.recv(2))
"""], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdout.readline() == "ready\n"
    client = net.client.popen([*KERNEL, PYTHON, "-u", "-c", f"""
import socket, time
s = socket.socket(); s.setblocking(False); s.connect_ex(("{net.server.address(0, 4)}", 7400)); print("asked")
s.settimeout(5); time.sleep(0.2); print("now"); s.sendall(b"hi"); print(s.recv(1))
"""], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert client.stdout.readline() == "asked\n" and client.stdout.readline() == "now\n"
    server.stdin.write("again\n")
    server.stdin.flush()
    assert server.stdout.readline() == "b'hi'\n", client.stderr.read()
    net.server.stop(server)
    net.client.stop(client)


@pytest.mark.timing
def test_who_sends_to_a_program_that_closed_is_told_before_its_queue_is_empty(lab):
    """TCP resets with the next segment. Ours waited for the FIN to be acknowledged: behind all that stands in the sender's queue."""
    net = lab.two_path(families="v4", rate="4M", queue="1000ms")
    server = net.server.popen([*shim(), PYTHON, "-u", "-c", """
import socket, time
l = socket.create_server(("0.0.0.0", 7401)); print("ready")
s, _ = l.accept(); end = time.monotonic() + 3
while time.monotonic() < end: s.recv(1 << 20)
s.setblocking(False)
try:
    while True: s.recv(1 << 20)
except BlockingIOError: pass
s.close(); print(time.monotonic())
time.sleep(5)
"""], stdout=subprocess.PIPE)
    assert server.stdout.readline() == "ready\n"
    done = net.client.run([*KERNEL, PYTHON, "-c", f"""
import socket, time
s = socket.create_connection(("{net.server.address(0, 4)}", 7401)); s.settimeout(10)
try:
    while True: s.sendall(bytes(4096))
except ConnectionError: print(time.monotonic())
"""])
    took = float(done.stdout) - float(server.stdout.readline())
    net.server.stop(server)
    assert took < 0.2, took  # it was 0.37; 0.02 now
