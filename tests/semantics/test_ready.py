"""When a socket is ready, and how a program hears of it: poll, select, epoll, SIGIO, io_uring."""
import pytest


def test_poll_through_a_connections_life(same):
    same("""
s = dial(ECHO); p = select.poll(); ALL = select.POLLIN | select.POLLOUT | select.POLLPRI | select.POLLRDHUP; p.register(s, ALL)
def now(): return [events(m) for f, m in p.poll(0)]
print(now()); s.send(b"x"); print(wait(lambda: now() == ["IN OUT"])); s.recv(1); print(now())
s.shutdown(1); print(wait(lambda: now() == ["IN OUT HUP RDHUP"])); print(s.recv(1), now())
""", "['OUT']\nTrue\n['OUT']\nTrue\nb'' ['IN OUT HUP RDHUP']")


def test_poll_sees_the_peers_end(same):
    same("""
s = dial_keep(port=EOF); p = select.poll(); p.register(s, select.POLLIN | select.POLLOUT | select.POLLRDHUP)
print(wait(lambda: [events(m) for f, m in p.poll(0)] == ["IN OUT RDHUP"]))
""", "True")


def test_poll_sees_a_reset(same):
    same("""
s = dial(RESET); s.send(b"x"); s.recv(100); p = select.poll(); p.register(s, select.POLLIN | select.POLLOUT | select.POLLRDHUP)
print(wait(lambda: [events(m) for f, m in p.poll(0)] == ["IN OUT ERR HUP RDHUP"])); print(name(s.getsockopt(1, 4)), [events(m) for f, m in p.poll(0)])
""", "True\nECONNRESET ['IN OUT HUP RDHUP']")


def test_select(same):
    same("""
s = dial(SLOW); print([len(x) for x in select.select([s], [s], [s], 0)]); s.send(b"1"); print([len(x) for x in select.select([s], [], [], 5)])
t = dial(STALL); t.setblocking(False)
def full():
    while isinstance(err(t.send, b"x" * 65536), int): pass
    time.sleep(0.2); return not select.select([], [t], [], 0)[1]
print(wait(full))
""", "[0, 1, 0]\n[1, 0, 0]\nTrue")


def test_writable_again_when_the_peer_reads(same):
    same("""
s = dial(SINKSLOW); s.setblocking(False); n = 0
e = select.epoll(); e.register(s, select.EPOLLOUT | select.EPOLLET)
while n < 8000000:
    r = err(s.send, b"x" * 65536)
    if isinstance(r, int): n += r
    elif not e.poll(10): print("never writable again", n); break
s.shutdown(1); s.setblocking(True); print(int(s.recv(20)) == n)
""", "True")


def test_edge_triggered(same):
    """One event for what comes, none while nothing new comes."""
    same("""
s = dial(STEP); e = select.epoll(); e.register(s, select.EPOLLIN | select.EPOLLET); print(e.poll(0.1)); s.send(b"1")
print([events(m) for f, m in e.poll(5)], s.recv(2), e.poll(0.1)); s.send(b"1"); print([events(m) for f, m in e.poll(5)], s.recv(99), e.poll(0.1))
""", "[]\n['IN'] b'01' []\n['IN'] b'23456789' []")


def test_oneshot(same):
    same("""
s = dial(ECHO); e = select.epoll(); e.register(s, select.EPOLLIN | select.EPOLLONESHOT); s.send(b"a"); print([events(m) for f, m in e.poll(5)], e.poll(0.1))
e.modify(s, select.EPOLLIN | select.EPOLLONESHOT); print([events(m) for f, m in e.poll(5)]); e.modify(s, select.EPOLLOUT); print([events(m) for f, m in e.poll(5)]); e.unregister(s)
""", "['IN'] []\n['IN']\n['OUT']")


def test_epoll_follows_duplicates(same):
    """The registration is of the open socket: closing one descriptor of two does not end it."""
    same("""
s = dial(ECHO); e = select.epoll(); e.register(s, select.EPOLLIN); d = s.dup(); n = s.fileno(); s.close(); d.send(b"a")
print([(f == n, events(m)) for f, m in e.poll(5)]); d.close(); print(e.poll(0.1))
""", "[(True, 'IN')]\n[]")


def test_sigio(same):
    same("""
got = []; signal.signal(signal.SIGIO, lambda *a: got.append(1)); s = dial(ECHO); fcntl.fcntl(s, fcntl.F_SETOWN, os.getpid())
fcntl.fcntl(s, fcntl.F_SETFL, fcntl.fcntl(s, fcntl.F_GETFL) | os.O_ASYNC); s.send(b"x"); print(wait(lambda: got and len(s.recv(1, socket.MSG_PEEK)) == 1), fcntl.fcntl(s, fcntl.F_GETOWN) == os.getpid())
""", "True True")


def test_sigio_during_connect(same):
    same("""
got = []; signal.signal(signal.SIGIO, lambda *a: got.append(1)); s = socket.socket(); s.setblocking(False); fcntl.fcntl(s, fcntl.F_SETOWN, os.getpid())
fcntl.fcntl(s, fcntl.F_SETFL, fcntl.fcntl(s, fcntl.F_GETFL) | os.O_ASYNC); err(s.connect, (FAR, ECHO)); print(bool(wait(lambda: got)), s.getsockopt(1, 4))
""", "True 0")


def test_flags_of_the_descriptor(same):
    """connect() leaves O_NONBLOCK and FD_CLOEXEC as they were."""
    same("""
for b in (True, False):
    s = socket.socket(); s.setblocking(b); fcntl.fcntl(s, fcntl.F_SETFD, 0); err(s.connect, (FAR, ECHO)); select.select([], [s], [], 5)
    print(bool(fcntl.fcntl(s, fcntl.F_GETFL) & os.O_NONBLOCK), fcntl.fcntl(s, fcntl.F_GETFD))
""", "False 0\nTrue 0")


URING = r"""
#include <arpa/inet.h>
#include <linux/io_uring.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
static int ring;
static struct io_uring_params p;
static char *sq, *cq;
static struct io_uring_sqe *sqes;
static int run(struct io_uring_sqe e)
{
    unsigned *tail = (void *)(sq + p.sq_off.tail), *mask = (void *)(sq + p.sq_off.ring_mask), *array = (void *)(sq + p.sq_off.array);
    unsigned i = *tail & *mask;
    sqes[i] = e, array[i] = i;
    atomic_store((_Atomic unsigned *)tail, *tail + 1);
    if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0) return -1000;
    unsigned *head = (void *)(cq + p.cq_off.head), *cmask = (void *)(cq + p.cq_off.ring_mask);
    struct io_uring_cqe *c = (void *)(cq + p.cq_off.cqes);
    int r = c[*head & *cmask].res;
    atomic_store((_Atomic unsigned *)head, *head + 1);
    return r;
}
int main(int argc, char **argv)
{
    char b[8] = "";
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(7101)};
    inet_pton(AF_INET, argv[argc - 1], &a.sin_addr);
    ring = syscall(SYS_io_uring_setup, 8, &p);
    if (ring < 0) return puts("none"), 0;
    sq = mmap(0, p.sq_off.array + p.sq_entries * 4, 3, MAP_SHARED, ring, IORING_OFF_SQ_RING);
    cq = mmap(0, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe), 3, MAP_SHARED, ring, IORING_OFF_CQ_RING);
    sqes = mmap(0, p.sq_entries * sizeof(struct io_uring_sqe), 3, MAP_SHARED, ring, IORING_OFF_SQES);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(s, (void *)&a, sizeof a)) return 1;
    printf("%d ", run((struct io_uring_sqe){.opcode = IORING_OP_SEND, .fd = s, .addr = (unsigned long)"uring", .len = 5}));
    printf("%d %s ", run((struct io_uring_sqe){.opcode = IORING_OP_RECV, .fd = s, .addr = (unsigned long)b, .len = 5, .msg_flags = MSG_WAITALL}), b);
    printf("%d ", run((struct io_uring_sqe){.opcode = IORING_OP_POLL_ADD, .fd = s, .poll32_events = 4}));
    printf("%d\n", run((struct io_uring_sqe){.opcode = IORING_OP_SHUTDOWN, .fd = s, .len = SHUT_WR}));
    return 0;
}
"""


def test_io_uring(same, net, tmp_path):
    """Data, polling and shutdown through a ring, on a connection that connect() made."""
    import subprocess
    (tmp_path / "uring.c").write_text(URING)
    if subprocess.run(["gcc", "-o", tmp_path / "uring", tmp_path / "uring.c"], capture_output=True).returncode:
        pytest.skip("no linux/io_uring.h")
    out = same(f"print(subprocess.run(['{tmp_path}/uring', FAR], capture_output=True, text=True).stdout)", carried=None)
    assert out.strip() in ("none", "5 5 uring 4 0")
