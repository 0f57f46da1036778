"""Where one cell of the matrix runs: two hosts, two emulated paths, a file, and how each side is wrapped.

    place.fetch(["curl", "-sS", url], out)     the program on the client's side
    place.serve([...], port=8000)              the one on the server's
    place.same(got)                            the data came whole
"""

import contextlib
import hashlib
import subprocess
import time
from pathlib import Path

from lab.host import PYTHON
from lab.netns import processes
from lab.shim import KERNEL, MPTCP_RUN

ROLES = ("client", "server", "both")
FAR, FAR6, NEAR = "10.10.1.1", "fd00:10:1::1", "10.10.1.2"


class Wrong(Exception):
    """The program did not do what it does without us."""


def listing(*roles):
    """A list of programs and the decorator that adds one: a function of the place, with the commands that it needs."""
    programs = []

    def app(name, needs, **options):
        def add(run):
            programs.append((name, needs, roles, run, options))
            return run
        return add
    return programs, app


class Place:
    """One cell. `role` says which side runs under mptcp-run ("kernel": none); the other one is on the kernel's MPTCP."""

    def __init__(self, lab, role, file, engine=None):
        ours = (MPTCP_RUN, *([f"--engine={engine}"] if engine else []))
        self.lab, self.role, self.file = lab, role, file
        self.client_wrap = list(ours if role in ("client", "both") else KERNEL)
        self.server_wrap = list(ours if role in ("server", "both") else KERNEL)
        self.dir = Path(lab.client.scratch("app-"))
        self.dir.chmod(0o777)
        self.logs = []

    # -- programs

    def serve(self, command, port=None, env=None, wrap=None, cwd=None, **options):
        """Starts a server and waits until it listens; its output goes to a log that failures show."""
        log = self.dir / f"server-{len(self.logs)}.log"
        self.logs.append(log)
        with log.open("w") as out:
            process = self.lab.server.popen([*(self.server_wrap if wrap is None else wrap), *command], env=env,
                                            stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=cwd, **options)
        if port and not self.lab.server.wait_listening(port, 15):
            raise Wrong(f"no server on port {port}")
        return process

    def client(self, command, env=None, wrap=None, timeout=40, stdin=None, cwd=None):
        """Runs a program on the client to its end; its output as bytes."""
        argv = self.lab.client.argv([*(self.client_wrap if wrap is None else wrap), *command], env)
        done = subprocess.run(argv, input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
                              capture_output=True, timeout=timeout, cwd=cwd)
        if done.returncode:
            said = (done.stderr + done.stdout)[-600:].decode(errors="replace")
            raise Wrong(f"{Path(str(command[0])).name}: exit {done.returncode}: {said}")
        return done.stdout

    def shell(self, script, **options):
        """A line of bash whose first word is the program; $U, $H, $P and $F are the URL, host, port and file."""
        return self.client(["bash", "-c", script], **options)

    # -- checks

    def same(self, data, copies=1):
        """`data` (bytes, or the path of a file) is the file, so many times over."""
        if isinstance(data, Path):
            data = data.read_bytes()
        body = self.file.path.read_bytes() * copies
        if hashlib.sha256(data).digest() != hashlib.sha256(body).digest():
            at = next((i for i, (a, b) in enumerate(zip(data, body)) if a != b), min(len(data), len(body)))
            raise Wrong(f"wrong data: {len(data)} bytes for {len(body)}, the first difference at {at}")

    @staticmethod
    def check(true, what):
        if not true:
            raise Wrong(what)

    def tail(self):
        """The last lines of the servers' logs."""
        return " | ".join(text[-300:] for log in self.logs if (text := log.read_text(errors="replace").strip()))

    # -- servers that several programs talk to

    def nginx(self, wrap=None, workers=1, more="", listen=""):
        """nginx with HTTP on 8000 and HTTPS on 8443; the file is /f."""
        prefix = self.dir / "nginx"
        prefix.mkdir()
        self.certificate()
        (prefix / "nginx.conf").write_text(NGINX.format(root=self.file.root, workers=workers, dir=self.dir, more=more, listen=listen))
        return self.serve(["/usr/sbin/nginx", "-p", prefix, "-c", prefix / "nginx.conf", "-e", prefix / "error.log"], 8443, wrap=wrap)

    def certificate(self):
        """A key and a certificate for the server, made once."""
        if not (self.dir / "cert.pem").exists():
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                            "-subj", "/CN=lab", "-addext", f"subjectAltName=IP:{FAR}", "-keyout", self.dir / "key.pem", "-out", self.dir / "cert.pem"],
                           check=True, capture_output=True)
        return self.dir / "cert.pem"

    def url(self, name=None, port=8000, scheme="http"):
        return f"{scheme}://{FAR}:{port}/{self.file.name if name is None else name}"

    def curl(self, port=8000, copies=1, name=None):
        """The reference client: the file from a server, so many times one after another over one connection."""
        self.same(self.client(["curl", "-sS", "--max-time", "30", *[self.url(name, port)] * copies]), copies)


NGINX = """\
daemon off;
worker_processes {workers};
user root;
pid nginx.pid;
events {{ worker_connections 1024; }}
http {{
    access_log off; sendfile on; client_max_body_size 0;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    ssl_certificate {dir}/cert.pem; ssl_certificate_key {dir}/key.pem;
    server {{
        listen 8000{listen}; listen 8443 ssl{listen};
        root {root};
        location / {{ dav_methods PUT DELETE; }}
    }}
    {more}
}}
"""


@contextlib.contextmanager
def measured(place):
    """Bytes over each interface of the client meanwhile: yields a list that holds them at the end."""
    names = ("eth0", "eth1")
    before, moved = place.lab.client.traffic(), []
    yield moved
    after = place.lab.client.traffic()
    moved += [sum(after[name]) - sum(before[name]) for name in names]


def wait_for(question, what, timeout=10):
    """Asks until the answer is true."""
    end = time.monotonic() + timeout
    while not question():
        if time.monotonic() > end:
            raise Wrong(f"{what}: not within {timeout} s")
        time.sleep(0.05)


def pids_of(host, name):
    """Pids of a host's processes whose command line begins with this program."""
    found = []
    for pid in processes(host.ns):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if Path(words[0].decode(errors="replace").split(":")[0].split(" ")[0]).name == name:
                found.append(pid)
    return found


__all__ = ["FAR", "FAR6", "KERNEL", "MPTCP_RUN", "NEAR", "PYTHON", "Place", "ROLES", "Wrong", "listing", "measured", "pids_of", "wait_for"]
