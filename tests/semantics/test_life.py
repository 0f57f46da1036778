"""Descriptors and processes: duplicates, passing, fork, exec, signals, threads, and the end."""
import os
import signal
import subprocess
from pathlib import Path

import pytest

MPTCP_RUN = Path(__file__).resolve().parents[2] / os.environ.get("B", "build") / "mptcp-run"


def test_dup2_over_a_connection(same):
    same("""
s = dial_keep(b"abc"); n = s.fileno(); r, w = os.pipe(); os.dup2(r, n); os.write(w, b"pipe"); print(os.read(n, 4), err(socket.socket(fileno=os.dup(n)).getpeername) if False else ""); print(kept())
""", "b'pipe' \n3 ba7816bf8f01cfea end")


def test_dup2_of_a_connection(same):
    same("""
s = dial(ECHO); r, w = os.pipe(); os.dup2(s.fileno(), r); s.close(); os.write(r, b"dup"); print(os.read(r, 9)); d = socket.socket(fileno=r); print(d.getpeername()); e = socket.socket(fileno=fcntl.fcntl(d, fcntl.F_DUPFD_CLOEXEC, 500)); print(e.fileno() >= 500, e.getpeername()[0])
""")


def test_connection_on_descriptor_zero(same):
    """inetd's way: the connection is stdin and stdout."""
    same("""
s = dial(ECHO); p = subprocess.Popen(["sh", "-c", "echo hello; read x; echo got $x >&2"], stdin=s, stdout=s, stderr=subprocess.PIPE); print(p.communicate()[1])
""", "b'got hello\\n'")


def test_descriptor_passed_over_a_unix_socket(same):
    """To a process that never connected: it is the same connection there, by name too."""
    same("""
a, b = socket.socketpair(); code = "from near import *; a = socket.socket(fileno=%d); m, fds, f, _ = socket.recv_fds(a, 9, 1); s = socket.socket(fileno=fds[0]); s.sendall(b'passed'); print(s.recv(6, socket.MSG_WAITALL), s.getpeername(), s.getsockname()[0], 0 < struct.unpack_from('I', s.getsockopt(6, 11, 104), 68)[0] < 50000, s.getsockopt(6, 2) < 1461)" % b.fileno()
p = subprocess.Popen([sys.executable, "-c", code], pass_fds=[b.fileno()], stdout=subprocess.PIPE, text=True); s = dial(ECHO); socket.send_fds(a, [b"x"], [s.fileno()]); s.close(); print(p.communicate()[0])
""", "b'passed' ('10.10.1.1', 7101) 10.10.1.2 True True\n")


def test_listener_passed_over_a_unix_socket(same):
    same("""
a, b = socket.socketpair(); code = "from near import *; a = socket.socket(fileno=%d); m, fds, f, _ = socket.recv_fds(a, 9, 1); l = socket.socket(fileno=fds[0]); s, who = l.accept(); s.sendall(b'passed'); print(s.recv(6), who[0])" % b.fileno()
p = subprocess.Popen([sys.executable, "-c", code], pass_fds=[b.fileno()], stdout=subprocess.PIPE, text=True); l = listen(); socket.send_fds(a, [b"x"], [l.fileno()]); call(l); print(p.communicate()[0])
""", "b'passed' 10.10.1.1\n")


def test_fork_in_mid_transfer(same):
    """Parent and child write by turns into one stream; both close; all arrives."""
    same("""
s = dial_keep(); r, w = os.pipe(); r2, w2 = os.pipe(); pid = os.fork()
for i in range(50):
    if pid: s.sendall(b"p" * 20000); os.write(w, b"."); os.read(r2, 1)
    else: os.read(r, 1); s.sendall(b"c" * 20000); os.write(w2, b".")
if not pid: os._exit(0)
os.waitpid(pid, 0); s.close(); print(kept() == f"2000000 {digest((b'p' * 20000 + b'c' * 20000) * 50)} end")
""", "True")


@pytest.mark.parametrize("first", ["parent", "child"])
def test_connection_lives_until_the_last_holder_closes(same, first):
    same(f"""
s = dial_keep(b"1"); pid = os.fork()
if not pid:
    if "{first}" == "parent": time.sleep(0.5)
    s.sendall(b"2"); os._exit(0)
if "{first}" == "child": os.waitpid(pid, 0); time.sleep(0.2); s.sendall(b"3")
s.close(); print(kept().split()[0::2]); """, "['2', 'end']" if first == "parent" else "['3', 'end']")


def test_server_forks_for_each_connection(same):
    same("""
l = listen(); signal.signal(signal.SIGCHLD, signal.SIG_IGN); call(l, "echo", 5)
for i in range(5):
    s, a = l.accept()
    if not os.fork(): l.close(); s.sendall(b"f%d" % i); d = s.recv(9); os.write(1, b"%d %d\\n" % (d == b"f%d" % i, s.getpeername() == a)); os._exit(0)
    s.close()
err(os.wait)  # SIG_IGN: returns when the last child has ended
""", "1 1\n" * 5)


def test_exec_with_an_open_connection(same):
    """The connection goes on in the program that follows, and is what it was."""
    same("""
s = dial(ECHO); s.set_inheritable(True); s.sendall(b"before"); print(s.recv(6), flush=True)
os.execv(sys.executable, [sys.executable, "-c", f"from near import *; s = socket.socket(fileno={s.fileno()}); s.sendall(b'after'); print(s.recv(5), s.getpeername())"])
""", "b'before'\nb'after' ('10.10.1.1', 7101)", hosts=["helper"])


def test_exec_with_an_open_connection_inside(same):
    same("""
s = dial(ECHO); s.set_inheritable(True); s.sendall(b"before"); print(s.recv(6), flush=True)
os.execv(sys.executable, [sys.executable, "-c", f"from near import *; s = socket.socket(fileno={s.fileno()}); s.settimeout(3); s.sendall(b'after'); print(s.recv(5), s.getpeername())"])
""", "b'before'\nb'after' ('10.10.1.1', 7101)", hosts=["inside"])


def test_exec_with_an_open_listener(same):
    same("""
l = listen(); l.set_inheritable(True)
os.execv(sys.executable, [sys.executable, "-c", f"from near import *; l = socket.socket(fileno={l.fileno()}); call(l); s, a = l.accept(); s.sendall(b'after'); print(s.recv(5), a[0], s.getpeername() == a)"])
""", "b'after' 10.10.1.1 True", hosts=["helper"])


def test_spawned_program_inherits_a_connection(same):
    same("""
s = dial(ECHO); n = s.fileno(); os.set_inheritable(n, True)
pid = os.posix_spawn(sys.executable, [sys.executable, "-c", f"from near import *; s = socket.socket(fileno={n}); s.sendall(b'spawn'); print(s.recv(5), s.getpeername()[0])"], os.environ); print(os.waitpid(pid, 0)[1]); s.sendall(b"mine"); print(s.recv(4))
""")


def test_daemon(same):
    """Double fork; the first two processes are gone while the connection works."""
    same("""
r, w = os.pipe()
if os.fork(): os.wait(); os.close(w); print(os.read(r, 100)); sys.exit(0)
os.setsid()
if os.fork(): os._exit(0)
time.sleep(0.2); s = dial(ECHO); s.sendall(b"daemon"); os.write(w, s.recv(6) + s.getpeername()[0].encode())
""", "b'daemon10.10.1.1'", carried=None)


def test_daemon_of_libc(same):
    """daemon(3) ends the parent, and with it its engine, by a call that cannot be interposed."""
    same("s = dial_keep(b'one'); libc.daemon(1, 1); time.sleep(0.3); s.sendall(b'two')", "6 end", after="print(*kept().split()[0::2])")


def test_no_child_and_no_sigchld(same):
    same("""
n = []; signal.signal(signal.SIGCHLD, lambda *a: n.append(1)); s = dial(ECHO); s.send(b"x"); s.recv(1); l = listen(); time.sleep(0.3); print(n, err(os.wait), err(os.waitpid, -1, 0x40000000))
""", "[] ECHILD ECHILD")


def test_interrupted_calls(same):
    """EINTR without SA_RESTART, none with it."""
    same("""
s = dial(STALL); b = ctypes.create_string_buffer(10); signal.signal(signal.SIGALRM, lambda *a: None)
for restart in (False, True):
    signal.siginterrupt(signal.SIGALRM, not restart); s.settimeout(None)
    if restart: s.setsockopt(1, 20, struct.pack("ll", 1, 0))
    signal.setitimer(signal.ITIMER_REAL, 0.2); a = time.monotonic(); print(libc.recv(s.fileno(), b, 10, 0), name(ctypes.get_errno()), time.monotonic() - a > 0.15)
""")


def test_signal_handler_that_uses_sockets(same):
    """Connects and sends from a handler that interrupts the main program's own calls."""
    same("""
done = []; ok = 0; dial(ECHO).close()
def handler(*a): t = dial(ECHO); t.sendall(b"h"); done.append(t.recv(1)); t.close(); signal.setitimer(signal.ITIMER_REAL, 0.002)
signal.signal(signal.SIGALRM, handler); signal.setitimer(signal.ITIMER_REAL, 0.002)
for i in range(300): s = dial(ECHO); s.sendall(b"%d" % i); ok += s.recv(9) == b"%d" % i; s.close()
signal.signal(signal.SIGALRM, signal.SIG_IGN); print(ok, len(done) > 0, set(done))
""", "300 True {b'h'}", carried=None)


CANCEL = r"""
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
static struct sockaddr_in a = {.sin_family = AF_INET};
static int s;
static void *reader(void *p) { char b; return (void *)read(s, &b, 1); }
static void *acceptor(void *p) { int l = socket(AF_INET, SOCK_STREAM, 0); listen(l, 5); accept(l, NULL, NULL); return NULL; }
static void *writer(void *p)
{
    static char big[1 << 20];
    struct sockaddr_in to = a;
    int w = socket(AF_INET, SOCK_STREAM, 0);
    to.sin_port = htons(7106);
    connect(w, (void *)&to, sizeof to);
    for (;;) send(w, big, sizeof big, 0);
}
static void *connector(void *p) { struct sockaddr_in to = a; inet_pton(AF_INET, "10.10.1.77", &to.sin_addr); connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&to, sizeof to); return NULL; }
static int cancelled(void *(*f)(void *))
{
    pthread_t t;
    void *r;
    pthread_create(&t, NULL, f, NULL);
    usleep(200000);
    pthread_cancel(t);
    pthread_join(t, &r);
    return r == PTHREAD_CANCELED;
}
int main(int argc, char **argv)
{
    char b[6] = "";
    a.sin_port = htons(7101);
    inet_pton(AF_INET, argv[1], &a.sin_addr);
    s = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(s, (void *)&a, sizeof a)) return 1;
    int x = cancelled(reader), y = cancelled(connector), z = cancelled(acceptor), u = cancelled(writer);
    ssize_t n = write(s, "alive", 5);
    printf("%d %d %d %d %d %d %s\n", x, y, z, u, (int)n, (int)recv(s, b, 5, MSG_WAITALL), b);
    return 0;
}
"""


def test_thread_cancellation(same, tmp_path):
    """A thread cancelled in read(), connect(), accept() or send() leaves the rest working."""
    import subprocess
    (tmp_path / "cancel.c").write_text(CANCEL)
    subprocess.run(["gcc", "-pthread", "-o", tmp_path / "cancel", tmp_path / "cancel.c"], check=True)
    same(f"print(subprocess.run(['{tmp_path}/cancel', FAR], capture_output=True, text=True, timeout=20).stdout)", "1 1 1 1 5 5 alive\n", carried=None)


HALFWAY = r"""
#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static struct sockaddr_in a;
static sigjmp_buf out;

static int dial(void) { int s = socket(AF_INET, SOCK_STREAM, 0); return connect(s, (void *)&a, sizeof a) ? -1 : s; }
static void *cancelled(void *none) { pthread_cancel(pthread_self()); dial(); return none; }
static void jump(int sig) { (void)sig; siglongjmp(out, 1); }
static void *echo(void *b) { int s = dial(); return write(s, "alive", 5) == 5 && recv(s, b, 5, MSG_WAITALL) == 5 ? b : NULL; }

int main(int n, char **arg)
{
    struct itimerval soon = {.it_value = {0, 1500}};
    pthread_t t;
    void *r = NULL;
    char b[6] = "";
    a.sin_family = AF_INET; a.sin_port = htons(atoi(arg[2])); inet_pton(AF_INET, arg[1], &a.sin_addr);
    signal(SIGALRM, jump);
    if (n > 3 && !sigsetjmp(out, 1)) { setitimer(ITIMER_REAL, &soon, NULL); dial(); pause(); }
    if (n == 3) { pthread_create(&t, NULL, cancelled, NULL); pthread_join(t, &r); }
    signal(SIGALRM, SIG_DFL);
    alarm(8);
    pthread_create(&t, NULL, echo, b); pthread_join(t, NULL);
    printf("%d %s\n", r == PTHREAD_CANCELED, b);
    return 0;
}
"""


@pytest.mark.parametrize("how, is_cancelled", [("", 1), ("jump", 0)])
def test_a_first_connect_left_halfway(same, tmp_path, how, is_cancelled):
    """Cancelled, or by a jump out of a signal handler, while the engine starts: the next thread connects."""
    import subprocess
    (tmp_path / "halfway.c").write_text(HALFWAY)
    subprocess.run(["gcc", "-pthread", "-o", tmp_path / "halfway", tmp_path / "halfway.c"], check=True)
    same(f"print(subprocess.run(['{tmp_path}/halfway', FAR, str(ECHO), *'{how}'.split()], capture_output=True, text=True, timeout=20).stdout)", f"{is_cancelled} alive\n", carried=None)


def test_nothing_is_loaded_from_another_root(net, same, tmp_path):
    """A privileged program in a user's chroot must not run what that user put there under our files' names."""
    import subprocess
    from conftest import MPTCP_RUN
    (tmp_path / "evil.c").write_text("""#include <fcntl.h>
__attribute__((constructor)) static void evil(void) { creat("/evil", 0600); }
int main(void) { return 0; }
""")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "evil.so", tmp_path / "evil.c"], check=True)
    subprocess.run(["gcc", "-static", "-o", tmp_path / "evil", tmp_path / "evil.c"], check=True)
    for at in "", str(MPTCP_RUN.resolve().parent)[1:]:
        there = tmp_path / "root" / at
        there.mkdir(parents=True, exist_ok=True)
        for name in "libmpshim-engine.so", "libmpshim-resolve.so":
            (there / name).write_bytes((tmp_path / "evil.so").read_bytes())
        (there / "mpshim-engine").write_bytes((tmp_path / "evil").read_bytes())
        (there / "mpshim-engine").chmod(0o755)
    for engine in "inside", "helper", [MPTCP_RUN, "-v"]:
        out, told = same.run(f"s = socket.socket(); os.chroot('{tmp_path}/root'); s.connect((FAR, ECHO)); s.sendall(b'x'); print(s.recv(1))", engine, env={"MPSHIM_CONTROL": "/ctl"})
        assert out == "b'x'\n" and "changed its root directory" in told[0], (engine, told)
        assert not (tmp_path / "root" / "evil").exists(), engine


def test_threads_read_and_write_at_once(same):
    same("""
s = dial(ECHO); data = os.urandom(4000000); t = threading.Thread(target=s.sendall, args=(data,)); t.start(); got = b""
while len(got) < len(data): got += s.recv(1 << 20)
t.join(); print(got == data)
""", "True")


def test_close_while_another_thread_reads(same):
    """The reader goes on waiting, as Linux has it; shutdown() first wakes it."""
    same("""
s = dial(ECHO); got = []; n = s.fileno(); t = threading.Thread(target=lambda: got.append(libc.recv(n, ctypes.create_string_buffer(9), 9, 0)), daemon=True); t.start(); time.sleep(0.2); s.shutdown(2); s.close(); t.join(5); print(got)
""", "[0]")


def test_number_reused_at_once(same):
    """A descriptor closed by a raw system call and taken by another file or connection carries no memory of the old one."""
    same("""
s = dial(ECHO); n = s.fileno(); libc.syscall(3, n); f = os.open("/etc/hostname", os.O_RDONLY); print(f == n, err(socket.socket(fileno=os.dup(f)).getpeername) if False else "", libc.getpeername(f, ctypes.create_string_buffer(16), ctypes.byref(ctypes.c_int(16))), name(ctypes.get_errno()))
os.close(f); t = dial(COUNT); print(t.fileno() == n, t.getpeername()[1] == COUNT); t.shutdown(1); print(t.recv(9)); s.detach()
""")


def test_limit_of_descriptors(same):
    """RLIMIT_NOFILE is the program's own: no number is lost to the engine."""
    same("""
import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); socks = []
s = dial(ECHO); n = len(os.listdir("/proc/self/fd")); files = []
try:
    while True: files.append(os.open("/dev/null", 0))
except OSError as e: print(name(e.errno), len(files) > 50)
for f in files[:5]: os.close(f)
t = dial(ECHO); t.sendall(b"low"); print(t.recv(3))
""")


def test_an_engine_that_found_no_descriptor_starts_later(same):
    """The first connection is the kernel's, and what comes when there is room again is carried."""
    out, told = same.run("""
import resource; limit = resource.getrlimit(resource.RLIMIT_NOFILE)
s = socket.socket(); resource.setrlimit(resource.RLIMIT_NOFILE, (s.fileno() + 1, limit[1])); s.connect((FAR, ECHO)); s.sendall(b"x"); print(s.recv(1))
resource.setrlimit(resource.RLIMIT_NOFILE, limit); t = dial(ECHO); t.sendall(b"y"); print(t.recv(1))
""", "inside")
    assert out == "b'x'\nb'y'\n" and "kernel TCP" in told[1] and any("connected, MPTCP" in line for line in told), told


def test_a_helper_without_descriptors_turns_programs_away(same, net):
    """At once, for the kernel to carry them; its loop is not woken by them for ever, and who has it keeps it."""
    import json
    import resource
    import time
    from pathlib import Path
    from conftest import HERE, MPTCP_RUN, PYTHON
    import subprocess
    code = "from near import *; s = dial(ECHO); print('up', flush=True); sys.stdin.read(1); s.sendall(b'x'); print(s.recv(1))"
    p = net.client.popen([MPTCP_RUN, "--engine=helper", PYTHON, "-c", code], env={"PYTHONPATH": HERE, "WORD": "w"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert p.stdout.readline() == "up\n"
    engines = json.loads(net.client.run([MPTCP_RUN.parent / "mptcp-stat", "--json", "--interval=0"]).stdout)
    pid = next(e["pid"] for e in engines if e["helper"] and p.pid in (c["pid"] for c in e["connections"]))  # other settings have others
    time_used = lambda: sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    time.sleep(1)  # what it gives up in the first moments is given up
    used = sorted(int(n.name) for n in Path(f"/proc/{pid}/fd").iterdir())
    limit = next(n for n in range(len(used) + 1) if n not in used)  # the lowest free number
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))
    cpu = time_used()
    out, told = same.run("a = time.monotonic(); s = dial(ECHO); print(time.monotonic() - a < 3); s.sendall(b'x'); print(s.recv(1))", "helper")
    assert out == "True\nb'x'\n" and "kernel TCP" in told[0] and time_used() - cpu < 100, (out, told, time_used() - cpu)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    assert p.communicate("x", timeout=10)[0] == "b'x'\n"


def test_a_log_file_takes_no_number(same, tmp_path):
    """Not 0 of a program that was started without standard input, neither."""
    same("""
os.close(0); os.execv(sys.executable, [sys.executable, "-c", "from near import *; s = dial(ECHO); print(s.fileno(), os.open('/dev/null', 0), [n for n in os.listdir('/proc/self/fd') if int(n) < 900])"])
""", carried=None, env={"MPSHIM_LOG": tmp_path / "log"})


@pytest.mark.parametrize("engine", ["inside", "helper"])
def test_a_log_that_nobody_reads_holds_nobody_up(net, same, engine):
    """The lines of -v go to a pipe that is full: neither this program's connections nor others in the helper wait for it."""
    import fcntl
    import os
    import subprocess
    from conftest import HERE, MPTCP_RUN, PYTHON
    r, w = os.pipe()
    os.write(w, b"x" * fcntl.fcntl(w, fcntl.F_GETPIPE_SZ))
    code = "from near import *; s = dial(ECHO); s.sendall(b'x'); print(s.recv(1), flush=True); sys.stdin.read()"
    p = net.client.popen([MPTCP_RUN, "-v", f"--engine={engine}", PYTHON, "-c", code], env={"PYTHONPATH": HERE, "WORD": "w"},
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=w)
    out, told = same.run("s = dial(ECHO); s.sendall(b'x'); print(s.recv(1))", "helper")
    assert out == "b'x'\n" and "connected" in told[0]
    assert p.communicate(timeout=10)[0] == "b'x'\n"
    os.close(r), os.close(w)


def test_exit_in_a_thread_and_atexit(same):
    same("""
import atexit; s = dial_keep(); atexit.register(lambda: s.sendall(b"atexit" * 1000)); s.sendall(b"x" * 100000)
""", "106000 end", after="print(*kept().split()[0::2])")


# The helper knows what is to be said if this program is killed.
TOLD = """
stat = lambda: json.loads(subprocess.run(["STAT", "--json", "--interval=0"], capture_output=True, text=True).stdout)
"LD_PRELOAD" not in os.environ or wait(lambda: any(e["pid"] == os.getpid() and e["will_told"] for e in stat())) or sys.exit("not told")
"""


@pytest.mark.parametrize("host, sig", [*(("helper", sig) for sig in ("SIGTERM", "SIGKILL")), *(("inside", sig) for sig in ("SIGTERM", "SIGINT", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGPROF", "SIGIO", "SIGRTMAX")),
                                       *(("inside", sig) for sig in ("SIGKILL", "SIGSEGV", "SIGABRT"))])
def test_killed_program_ends_its_connections(same, sig, host):
    """The far end hears of it: an end or a reset, never silence."""
    from conftest import MPTCP_RUN
    at_once = host == "inside" and sig in ("SIGKILL", "SIGSEGV", "SIGABRT")
    until = TOLD.replace("STAT", str(MPTCP_RUN.with_name("mptcp-stat"))) if at_once else "time.sleep(0.3)"
    same(f"[signal.signal(n, signal.SIG_DFL) for n in (signal.SIGINT, signal.SIGHUP)]; s = dial_keep(b'abc')\n{until}\nos.kill(os.getpid(), signal.{sig})", "3",
         after="print(kept(4).split()[0])", status=-getattr(signal, sig), carried=None, hosts=[host])


def test_what_was_written_arrives_though_a_signal_ends_the_program(same):
    """As the kernel sends on what is in a socket when its process is ended, from whichever thread."""
    same("""
import threading
def end(): time.sleep(0.1); os.kill(os.getpid(), signal.SIGTERM)
s = dial_keep(); s.sendall(b"x" * 300000)
threading.Thread(target=end).start(); time.sleep(9)
""", "300000 end", after="print(*kept().split()[0::2])", status=-15)


def test_a_signal_that_ends_the_program_is_said_to_have_its_default_action(same):
    same("""
s = dial(ECHO)
class Action(ctypes.Structure): _fields_ = [("handler", ctypes.c_void_p), ("mask", ctypes.c_ulong * 16), ("flags", ctypes.c_int), ("restorer", ctypes.c_void_p)]
def action(sig, new=None):
    old = Action(); a = Action(handler=new) if new is not None else None
    assert libc.sigaction(int(sig), ctypes.byref(a) if a else None, ctypes.byref(old)) == 0
    return old.handler or 0
libc.signal.restype = libc.signal.argtypes = None
libc.signal.restype, libc.signal.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p]
for sig in signal.SIGHUP, signal.SIGTERM, signal.SIGALRM:
    print(action(sig), action(sig, 1), action(sig, 0), action(sig), libc.signal(sig, 1), libc.signal(sig, 0), libc.signal(sig, 0))
got = []
signal.signal(signal.SIGTERM, lambda *a: got.append(1)); os.kill(os.getpid(), signal.SIGTERM); print(got)
print(signal.signal(signal.SIGHUP, signal.SIG_IGN) == signal.SIG_DFL); os.kill(os.getpid(), signal.SIGHUP); print("alive", flush=True)
signal.signal(signal.SIGTERM, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGTERM)
""", status=-15)


SANITIZED = r"""
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(7101)};
    char *room = malloc(1000);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    inet_pton(AF_INET, "10.10.1.1", &a.sin_addr);
    if (connect(s, (void *)&a, sizeof a) || write(s, "sanitized", 9) != 9) return perror("connect"), 1;
    printf("%.*s\n", (int)read(s, room, 1000), room);
    free(room);
    return 0;
}
"""


@pytest.mark.needs("gcc")
@pytest.mark.parametrize("kind", ["address", "thread", "undefined"])
def test_program_built_with_a_sanitizer(net, tmp_path, kind):
    """Their runtimes end a process that loads a library with RTLD_DEEPBIND. ASan wants to be the first library."""
    program = tmp_path / "sanitized"
    if subprocess.run(["gcc", f"-fsanitize={kind}", "-x", "c", "-", "-o", program], input=SANITIZED, text=True).returncode:
        pytest.skip(f"gcc has no -fsanitize={kind}")
    first = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout.strip()
    env = {"LD_PRELOAD": first} if kind == "address" else {}
    for engine in ("auto", "helper"):
        done = net.client.run([MPTCP_RUN, "-v", f"--engine={engine}", program], env=env, timeout=40, check=False)
        assert (done.returncode, done.stdout) == (0, "sanitized\n"), done.stderr
        assert "connected, MPTCP" in done.stderr and "ERROR" not in done.stderr, done.stderr
