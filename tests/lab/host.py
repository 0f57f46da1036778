"""A host of the lab: one network namespace, and the programs that run in it."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import netns

HERE = Path(__file__).resolve().parent
PYTHON = "/usr/bin/python3"


@dataclass
class Interface:
    """One interface of a host. peer is the device at the other end of its veth."""
    name: str
    v4: str = ""
    v6: str = ""
    peer: str = ""
    routes: list = field(default_factory=list)   # given back when the link comes up again


class Host:
    """host.run([...]) runs a program there; host.address(1) is its second address."""

    def __init__(self, lab, role):
        self.lab, self.role = lab, role
        self.ns = f"{lab.prefix}-{role}"
        self.interfaces = []
        self._processes, self._cleanups = [], []
        netns.create(self.ns)

    def __repr__(self):
        return f"<{self.role} {self.ns}>"

    # -- addresses and configuration

    def address(self, index=0, family=4):
        interface = self.interfaces[index]
        return interface.v4 if family == 4 else interface.v6

    def ip(self, *args):
        """Runs ip(8) here: host.ip("route", "show")."""
        return netns.ip(*args, ns=self.ns)

    def ip_batch(self, lines):
        netns.ip_batch(lines, ns=self.ns)

    def sysctl(self, values):
        """Sets net.* variables: {"ipv4/conf/all/rp_filter": 1}."""
        netns.sysctl(self.ns, values)

    def nft(self, rules):
        """Loads nftables rules, as text."""
        self.run(["nft", "-f", "-"], stdin=rules)

    def inside(self):
        """Context manager: the calling thread makes its sockets here."""
        return netns.inside(self.ns)

    def link_down(self, index):
        self.ip("link", "set", self.interfaces[index].name, "down")

    def link_up(self, index):
        """Brings an interface up again, with the routes that it had."""
        interface = self.interfaces[index]
        self.ip("link", "set", interface.name, "up")
        self.ip_batch(interface.routes)

    # -- programs

    def argv(self, command, env=None):
        """The command as run in this host. The environment is set for the program
        itself, so that LD_PRELOAD does not reach ip(8)."""
        extra = [f"{key}={value}" for key, value in (env or {}).items()]
        return ["ip", "netns", "exec", self.ns, *(["env", *extra] if extra else []),
                *map(str, command)]

    def run(self, command, timeout=60, check=True, env=None, stdin=None, **options):
        """Runs a program to its end; text in and out. On a time-out the program and
        its children are killed, and subprocess.TimeoutExpired is raised."""
        process = self.popen(command, env=env, stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
        try:
            out, err = process.communicate(stdin, timeout=timeout)
        except BaseException:
            _end(process)
            raise
        self._processes.remove(process)
        done = subprocess.CompletedProcess(command, process.returncode, out, err)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{out}{err}")
        return done

    def popen(self, command, env=None, **options):
        """Starts a program in a session of its own; it is ended with the lab at the latest."""
        options = {"text": True, "start_new_session": True, **options}
        process = subprocess.Popen(self.argv(command, env), **options)
        self._processes.append(process)
        return process

    def stop(self, process):
        """Ends a program started by popen(), with its process group."""
        _end(process)
        if process in self._processes:
            self._processes.remove(process)

    # -- servers

    def spawn_http(self, root, mptcp=True, bind="::", port=8000, wrap=(), env=None, congestion="cubic"):
        """Starts the lab's HTTP server (httpd.py: GET, PUT, /size/N); returns it as a Server.

        mptcp: it asks the kernel for MPTCP sockets itself. wrap: a command to run
        it under, such as ["mptcpize", "run"] or the path of mptcp-run.
        """
        command = [*wrap, PYTHON, HERE / "httpd.py", "--bind", bind, "--port", str(port), "--root", root]
        command += ["--mptcp"] * bool(mptcp) + (["--congestion", congestion] if congestion else [])
        process = self.popen(command, env=env, stdout=subprocess.PIPE)
        return self._serving(process, process.stdout.readline() == "ready\n", port)

    def spawn_nginx(self, root, mptcp=True, port=8080, wrap=None, env=None, workers=1):
        """Starts nginx in the foreground under a prefix of its own; PUT is allowed.

        It knows nothing of MPTCP, so it runs under mptcpize unless wrap says otherwise.
        """
        prefix = Path(self.scratch("nginx-"))
        (prefix / "nginx.conf").write_text(NGINX_CONF.format(root=root, port=port, workers=workers))
        wrap = (["mptcpize", "run"] if mptcp else []) if wrap is None else wrap
        process = self.popen([*wrap, "/usr/sbin/nginx", "-p", prefix, "-c", prefix / "nginx.conf",
                              "-e", prefix / "error.log"], env=env)
        return self._serving(process, self.wait_listening(port), port)

    def _serving(self, process, ok, port):
        if not ok:
            raise RuntimeError(f"no server on port {port} of {self}: exit {process.poll()}")
        return Server(self, process, port)

    def wait_listening(self, port, timeout=20):
        """Waits until something listens on a TCP port here."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.run(["ss", "-Hltn", f"sport = :{port}"]).stdout:
                return True
            time.sleep(0.02)
        return False

    def scratch(self, prefix=""):
        """A directory that is removed with the lab; other users may enter it."""
        directory = tempfile.TemporaryDirectory(prefix=f"{self.ns}-{prefix}")
        os.chmod(directory.name, 0o755)
        self._cleanups.append(directory.cleanup)
        return directory.name

    # -- looking

    def nstat(self):
        """All counters of this host, by the names of nstat: {"MPTcpExtMPJoinSynRx": 1, ...}."""
        with self.inside():
            texts = [Path("/proc/thread-self/net", name).read_text() for name in ("netstat", "snmp")]
            pairs = Path("/proc/thread-self/net/snmp6").read_text().split()
        six = {name: int(value) for name, value in zip(pairs[::2], pairs[1::2])}
        return {key: value for text in texts for key, value in _counters(text)} | six

    def traffic(self):
        """Bytes by interface since its creation: {"eth0": (received, sent), ...}."""
        with self.inside():
            lines = Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]
        rows = [line.replace(":", " ").split() for line in lines]
        return {row[0]: (int(row[1]), int(row[9])) for row in rows}

    def ss_m(self):
        """The kernel's MPTCP sockets, as ss -M prints them."""
        return self.run(["ss", "-HMani"]).stdout

    def ss(self, *args):
        return self.run(["ss", *args]).stdout

    @contextlib.contextmanager
    def capture(self, device="any", path=None, expression="tcp"):
        """Runs tcpdump meanwhile; yields the path of the pcap file, complete afterwards."""
        path = Path(path or Path(self.scratch("pcap-"), f"{self.role}-{device}.pcap"))
        process = self.popen(["tcpdump", "-Uni", device, "--immediate-mode", "-s", "200", "-w", path, expression],
                             stderr=subprocess.PIPE)
        process.stderr.readline()                     # "listening on ..."
        try:
            yield path
        finally:
            time.sleep(0.05)
            self.stop(process)
            process.stderr.close()

    # -- the end

    def close(self):
        """Ends the programs, then the namespace with whatever else runs in it."""
        for process in reversed(self._processes):
            _end(process)
        self._processes.clear()
        netns.remove(self.ns)
        while self._cleanups:
            self._cleanups.pop()()


@dataclass
class Server:
    """A running server; usable as a context manager that stops it."""
    host: Host
    process: subprocess.Popen
    port: int

    @property
    def pid(self):
        return self.process.pid

    def url(self, name, index=0, family=4):
        address = self.host.address(index, family)
        return f"http://{f'[{address}]' if ':' in address else address}:{self.port}/{name}"

    def cpu_seconds(self):
        """User and system time of the server so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.host.stop(self.process)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()


def _end(process):
    """Ends a process group that we started: SIGTERM, then SIGKILL."""
    for sig, grace in ((signal.SIGTERM, 1), (signal.SIGKILL, 5)):
        if process.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sig)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    for stream in (process.stdin, process.stdout):
        if stream:
            with contextlib.suppress(OSError):
                stream.close()


def _counters(text):
    """Pairs of lines "Kind: name name" / "Kind: value value" as (Kindname, value)."""
    lines = text.splitlines()
    for names, values in zip(lines[::2], lines[1::2]):
        kind, names = names.split(":")
        for name, value in zip(names.split(), values.split(":")[1].split()):
            yield kind + name, int(value)


def parse_last_json(text):
    """The JSON object on the last line of a program's output."""
    return json.loads(text.strip().splitlines()[-1])


NGINX_CONF = """\
daemon off;
worker_processes {workers};
user root;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    client_max_body_size 0;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        listen {port};
        listen [::]:{port};
        root {root};
        location / {{ dav_methods PUT DELETE; create_full_put_path on; autoindex on; }}
    }}
}}
"""
