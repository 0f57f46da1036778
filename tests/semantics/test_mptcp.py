"""Programs that know MPTCP: IPPROTO_MPTCP and SOL_MPTCP, compared with the kernel's MPTCP."""
import pytest
from conftest import MPTCP_RUN

MADE = """
def made(family=2): return socket.socket(family, socket.SOCK_STREAM, 262)
s = made(); s.connect((FAR, ECHO)); s.sendall(b"x" * 1000); n = 0
while n < 1000: n += len(s.recv(1000))
time.sleep(0.4)
"""


def test_socket_of_mptcp(same):
    same("""
s = socket.socket(2, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 262); print(s.getsockopt(1, 38), s.getsockopt(1, 3), s.getsockopt(1, 39), os.get_blocking(s.fileno()), os.get_inheritable(s.fileno()), err(s.connect, (FAR, ECHO)))
select.select([], [s], [], 5); s.send(b"x"); select.select([s], [], [], 5); print(s.recv(1), s.getsockopt(1, 38), s.getpeername()); print(err(socket.socket, 2, socket.SOCK_DGRAM, 262), err(socket.socket, 1, socket.SOCK_STREAM, 262))
""")


def test_listener_of_mptcp(same):
    same("""
l = socket.socket(2, socket.SOCK_STREAM, 262); l.bind(("0.0.0.0", 0)); l.listen(); call(l); s, a = l.accept(); s.sendall(b"x"); print(s.recv(1), a[0], l.getsockopt(1, 38), s.getsockopt(1, 38), len(s.getsockopt(284, 1, 48)))
""", "b'x' 10.10.1.1 262 262 48")


def test_loopback_is_the_kernels(same):
    same("l = socket.create_server(('127.0.0.1', 0)); s = socket.socket(2, socket.SOCK_STREAM, 262); s.connect(l.getsockname()); c, a = l.accept(); s.send(b'x'); print(c.recv(1), s.getsockopt(1, 38))", "b'x' 262", carried=None)


def test_info(same):
    same(MADE + """
i = s.getsockopt(284, 1, 96); u = struct.unpack_from("6B2xIIQQQ3B", i); print(u[6] & 2, u[7] != 0, u[8] - u[9], u[10] != 0, u[13] in (0, 1), u[0] >= 1)
print(len(s.getsockopt(284, 1, 4)), len(s.getsockopt(284, 1, 48)), err(s.getsockopt, 284, 99, 4)); t = made(); print(s.getsockopt(284, 1, 96) != t.getsockopt(284, 1, 96), t.getsockopt(284, 1, 6)[0])
""")


def test_bytes_in_info(same):
    same(MADE + "print(*struct.unpack_from('QQQ', s.getsockopt(284, 1, 96), 56), s.getsockopt(284, 1, 96)[80] >= 2)", "1000 1000 1000 True")


def test_subflow_addresses(same):
    same(MADE + """
def subflows(opt, size, n=8):
    b = ctypes.create_string_buffer(struct.pack("4I", 16, 0, 0, size) + b"\\0" * size * n); l = ctypes.c_int(len(b.raw) - 1); r = libc.getsockopt(s.fileno(), 284, opt, b, ctypes.byref(l))
    return (r, name(ctypes.get_errno())) if r else (*struct.unpack_from("4I", b.raw), l.value, b.raw[16:])
a = subflows(3, 256); print(a[0], a[1] >= 2, a[2:4], a[4] == 16 + 256 * a[1])
addrs = sorted({(socket.inet_ntoa(a[5][256 * k + 4:256 * k + 8]), socket.inet_ntoa(a[5][256 * k + 132:256 * k + 136])) for k in range(a[1])}); print(("10.10.1.2", "10.10.1.1") in addrs, len(addrs) >= 2, {struct.unpack_from("!H", a[5], 130)[0]})
t = subflows(2, 104); print(t[0], t[1] == a[1], t[3], t[4] == 16 + 104 * t[1], t[5][0], 0 < struct.unpack_from("I", t[5], 68)[0] < 60000, 1000 < struct.unpack_from("I", t[5], 16)[0] < 1461)
print(subflows(3, 256, 1)[4], subflows(3, 0)[0:4:3])
b = ctypes.create_string_buffer(16); l = ctypes.c_int(8); print(libc.getsockopt(s.fileno(), 284, 3, b, ctypes.byref(l)), name(ctypes.get_errno())); l = ctypes.c_int(16); print(libc.getsockopt(s.fileno(), 284, 3, b, ctypes.byref(l)), name(ctypes.get_errno()))
""")


def test_full_info(same):
    same(MADE + """
sf, ti = ctypes.create_string_buffer(264 * 8), ctypes.create_string_buffer(104 * 8)
b = ctypes.create_string_buffer(struct.pack("6IQQ", 0, 104, 0, 264, 0, 8, ctypes.addressof(sf), ctypes.addressof(ti)) + b"\\0" * 96); l = ctypes.c_int(136); r = libc.getsockopt(s.fileno(), 284, 4, b, ctypes.byref(l)); u = struct.unpack_from("6I", b.raw)
print(r, l.value, u[1], u[3] in (260, 264), u[4] >= 2, u[5], socket.inet_ntoa(sf.raw[8 + 4 - 4 * (u[3] == 260):][:4]) in ("10.10.1.2", "10.10.2.2"), ti.raw[0], b.raw[40] >= 1)
""")


@pytest.fixture
def no_kernel_mptcp(net):
    net.client.sysctl({"mptcp/enabled": 0})
    yield
    net.client.sysctl({"mptcp/enabled": 1})


@pytest.mark.parametrize("engine", ["inside", "helper", "never"])
def test_works_without_mptcp_in_the_kernel(same, no_kernel_mptcp, engine):
    code = "s = socket.socket(2, socket.SOCK_STREAM, 262); s.connect((FAR, ECHO)); s.sendall(b'x'); print(s.recv(1), err(s.getsockopt, 284, 1, 4) in ('ENOTSUP', 'ENOPROTOOPT'))"
    out, _ = same.run(code, [MPTCP_RUN, f"--engine={engine}"])
    assert out == f"b'x' {engine == 'never'}\n"
