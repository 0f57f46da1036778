"""The control protocol of libmpshim/engine/ctl.h from a program's side, for tests: no shim needed."""
import array
import ctypes as C
import os
import socket
import struct

HELLO, CONNECT, LISTEN, UNLISTEN, QUERY, SETOPT, DRAIN, STATUS, RELEASE_PORT = range(1, 10)
NONE, CONNECTING, OPEN, FAILED, CLOSED = range(5)
F_NODELAY, F_KEEPALIVE, F_CORK, F_V6ONLY, F_REUSEPORT, F_KEPT, F_KEEP = 1, 2, 4, 8, 16, 0x2000, 0x4000
KEPT = 0x8000  # in an answer's op


class Addr(C.Structure):
    _fields_ = [("b", C.c_uint8 * 28)]
    _align_ = 4


class _Addr(C.Union):
    _fields_ = [("w", C.c_uint32 * 7), ("b", C.c_uint8 * 28)]


class Req(C.Structure):
    _fields_ = [("version", C.c_uint16), ("op", C.c_uint16), ("pid", C.c_int32),
                ("remote", _Addr), ("local", _Addr), ("identity", _Addr),
                ("flags", C.c_uint32), ("opt", C.c_uint32), ("value", C.c_uint64),
                ("keepidle_s", C.c_int32), ("keepintvl_s", C.c_int32), ("keepcnt", C.c_int32), ("user_timeout_ms", C.c_int32),
                ("rcvbuf", C.c_uint32), ("sndbuf", C.c_uint32), ("tos", C.c_uint8), ("pad", C.c_uint8 * 7),
                ("prog", C.c_char * 32)]


class Rep(C.Structure):
    _fields_ = [("version", C.c_uint16), ("op", C.c_uint16), ("result", C.c_int32), ("why", C.c_uint32),
                ("state", C.c_uint32), ("err", C.c_int32),
                ("identity", _Addr), ("local", _Addr), ("remote", _Addr),
                ("plain_why", C.c_uint32), ("nsubflows", C.c_uint32),
                ("srtt_us", C.c_uint64), ("rttvar_us", C.c_uint64), ("cwnd_bytes", C.c_uint64), ("mss", C.c_uint64),
                ("unacked_bytes", C.c_uint64), ("bytes_sent", C.c_uint64), ("bytes_received", C.c_uint64)]


def pack(host, port):
    a = _Addr()
    if ":" in host:
        raw = struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, 0) + socket.inet_pton(socket.AF_INET6, host) + bytes(4)
    else:
        raw = struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(host) + bytes(8)
    C.memmove(C.addressof(a), raw, len(raw))
    return a


def unpack(a):
    raw = bytes(a.b)
    family, = struct.unpack_from("=H", raw)
    port, = struct.unpack_from("!H", raw, 2)
    if family == socket.AF_INET:
        return socket.inet_ntoa(raw[4:8]), port
    return (socket.inet_ntop(socket.AF_INET6, raw[8:24]), port) if family == socket.AF_INET6 else None


class Ctl:
    def __init__(self, path):
        self.s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.s.connect(path)

    def close(self):
        self.s.close()

    def _send(self, op, fds, text=b"", **kw):
        q = Req(version=2, op=op, pid=os.getpid())
        for k, v in kw.items():
            setattr(q, k, v)
        anc = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.s.sendmsg([bytes(q) + text], anc)

    def tell(self, op, **kw):
        self._send(op, [], **kw)

    def ask(self, op, fds=(), text=b"", timeout=10, **kw):
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with a:
            with b:
                self._send(op, [b.fileno(), *fds], text, **kw)
            a.settimeout(timeout)
            raw = a.recv(C.sizeof(Rep))
        return self.answer(raw)

    @staticmethod
    def answer(raw):
        if len(raw) != C.sizeof(Rep):
            raise EOFError(f"answer of {len(raw)} bytes")
        return Rep.from_buffer_copy(raw)

    def keep(self, name, op, **kw):
        """A socket on which answers come from now on, and the first one."""
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        a.settimeout(10)
        with b:
            self._send(op, [b.fileno()], flags=F_KEEP, value=name, **kw)
        return a, self.answer(a.recv(C.sizeof(Rep)))

    def ask_kept(self, a, name, op, **kw):
        self._send(op, [], flags=F_KEPT, value=name, **kw)
        return self.answer(a.recv(C.sizeof(Rep)))

    def status(self):
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with a:
            with b:
                self._send(STATUS, [b.fileno()])
            a.settimeout(10)
            out = b""
            while piece := a.recv(65536):
                out += piece
        import json
        return json.loads(out)

    # ---- what the shim does ----
    def identity(self, host, port, **kw):
        r = self.ask(CONNECT, remote=pack(host, port), **kw)
        if r.result:
            raise OSError(-r.result, f"why {r.why}")
        return unpack(r.identity)

    def connect(self, host, port, family=socket.AF_INET, blocking=True, timeout=10, **kw):
        s = socket.socket(family, socket.SOCK_STREAM)
        ident = self.identity(host, port, **kw)
        s.settimeout(timeout if blocking else 0)
        if family == socket.AF_INET6 and "." in ident[0]:
            ident = ("::ffff:" + ident[0], ident[1])
        try:
            s.connect(ident)
        except BlockingIOError:
            pass
        except OSError:
            s.close()
            raise
        return s

    def query(self, s):
        return self.ask(QUERY, identity=pack(*s.getpeername()[:2]), local=pack(*s.getsockname()[:2]))
