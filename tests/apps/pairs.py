"""Programs that are client and server of their own protocol."""

import contextlib
import json
import os
import pwd
import subprocess
import threading
from pathlib import Path

from .place import FAR, FAR6, Wrong, listing, wait_for

APPS, app = listing("client", "server", "both")


# -- ssh

SSHD = """\
Port 2222
ListenAddress 0.0.0.0
HostKey {dir}/host
AuthorizedKeysFile {dir}/user.pub
PidFile {dir}/sshd.pid
StrictModes no
UsePAM no
PermitRootLogin yes
Subsystem sftp internal-sftp
"""


def sshd(p):
    """sshd, and the words that make ssh, scp and rsync reach it."""
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", p.dir / key], check=True)
    (p.dir / "sshd_config").write_text(SSHD.format(dir=p.dir))
    os.makedirs("/run/sshd", exist_ok=True)
    p.serve(["/usr/sbin/sshd", "-D", "-e", "-f", p.dir / "sshd_config"], 2222)
    return ["-F", "none", "-i", str(p.dir / "user"), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
            "-o", "LogLevel=ERROR", "-o", "BatchMode=yes"]


@app("ssh, both ways", ["ssh", "sshd"])
def ssh(p):
    options = sshd(p)
    data = p.file.path.read_bytes()
    p.same(p.client(["ssh", *options, "-p", "2222", FAR, "cat"], stdin=data))


@app("scp", ["scp", "sshd"])
def scp(p):
    p.client(["scp", *sshd(p), "-P", "2222", f"{FAR}:{p.file.path}", p.dir / "got"])
    p.same(p.dir / "got")


@app("rsync over ssh", ["rsync", "sshd"])
def rsync_ssh(p):
    words = " ".join(["ssh", "-p", "2222", *sshd(p)])
    p.client(["rsync", "-e", words, p.file.path, f"{FAR}:{p.dir}/got"])
    p.same(p.dir / "got")


@app("rsync daemon", ["rsync"])
def rsync(p):
    (p.dir / "rsyncd.conf").write_text(f"use chroot = no\nuid = root\npid file = {p.dir}/rsyncd.pid\n[m]\npath = {p.file.root}\n")
    p.serve(["rsync", "--daemon", "--no-detach", "--port=8730", f"--config={p.dir}/rsyncd.conf"], 8730)
    p.client(["rsync", f"rsync://{FAR}:8730/m/{p.file.name}", p.dir / "got"])
    p.same(p.dir / "got")


# -- git

def git(*args, home):
    subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e@e", *map(str, args)], check=True, capture_output=True,
                   env={**os.environ, "HOME": str(home)})


def make_repository(p, at):
    """A bare repository with the file as `big`, ready for dumb HTTP."""
    work = p.dir / "work"
    git("init", "-q", "-b", "main", work, home=p.dir)
    (work / "big").write_bytes(p.file.path.read_bytes())
    git("-C", work, "add", "big", home=p.dir)
    git("-C", work, "commit", "-qm", "x", home=p.dir)
    git("clone", "-q", "--bare", work, at, home=p.dir)
    git("-C", at, "update-server-info", home=p.dir)


@app("git over ssh, clone and push", ["git", "sshd"])
def git_ssh(p):
    words = " ".join(["ssh", "-p", "2222", *sshd(p)])
    make_repository(p, p.dir / "r.git")
    env = {"HOME": p.dir, "GIT_SSH_COMMAND": words}
    p.client(["git", "clone", "-q", f"{FAR}:{p.dir}/r.git", p.dir / "clone"], env=env)
    p.same(p.dir / "clone" / "big")
    git("-C", p.dir / "clone", "commit", "-q", "--allow-empty", "-m", "y", home=p.dir)
    p.client(["git", "-C", p.dir / "clone", "push", "-q", "origin", "HEAD:other"], env=env)


@app("git daemon, clone", ["git"])
def git_daemon(p):
    make_repository(p, p.dir / "r.git")
    p.serve(["git", "daemon", "--reuseaddr", f"--base-path={p.dir}", "--export-all"], 9418, env={"HOME": p.dir})
    p.client(["git", "clone", "-q", f"git://{FAR}/r.git", p.dir / "clone"], env={"HOME": p.dir})
    p.same(p.dir / "clone" / "big")


# -- measuring

@app("iperf3, both ways, IPv4 and IPv6", ["iperf3"], unchecked="iperf3 counts bytes, and does not compare them; with -n it ends when all is written, not when all has come")
def iperf3(p):
    p.serve(["iperf3", "-s"], 5201)
    for more in ([], ["-R"], ["--bidir"]):
        said = json.loads(p.client(["iperf3", "-c", FAR, "-n", "12M", "-J", *more]))
        p.check("error" not in said, said.get("error"))
        p.check(said["end"]["sum_received"]["bytes"] > 8e6, "bytes are missing")
    p.check("iperf Done" in p.client(["iperf3", "-6", "-c", FAR6, "-n", "2M"]).decode(), "over IPv6")


# -- databases

@app("redis, background save", ["redis-server", "redis-cli"])
def redis(p):
    p.serve(["redis-server", "--bind", "0.0.0.0", "--port", "6379", "--protected-mode", "no", "--dir", p.dir, "--save", ""], 6379)

    def cli(*words, **options):
        return p.client(["redis-cli", "-h", FAR, *words], **options)

    p.check(cli("-x", "set", "k", stdin=p.file.path.read_bytes()).strip() == b"OK", "SET")
    p.check(b"started" in cli("bgsave"), "BGSAVE")
    p.same(cli("get", "k")[:-1])
    wait_for(lambda: b"rdb_bgsave_in_progress:0" in cli("info", "persistence"), "the end of the background save")
    p.check(b"rdb_last_bgsave_status:ok" in cli("info", "persistence"), "background save")
    p.check((p.dir / "dump.rdb").stat().st_size > p.file.size * 0.9, "dump.rdb")


def postgres_programs():
    return sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]


@app("postgres, psql", ["psql", "postgres"], note="the server runs as user postgres, with CAP_NET_RAW and CAP_NET_ADMIN as ambient capabilities")
def postgres(p):
    """A table is filled from the client and read back; the server forks for each connection."""
    user = pwd.getpwnam("postgres")
    programs, data = postgres_programs(), p.dir / "pg"
    as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    subprocess.run([*as_user, programs / "initdb", "-D", data, "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"], check=True, capture_output=True)
    with (data / "pg_hba.conf").open("a") as file:
        file.write("host all all 10.10.0.0/16 trust\n")
    caps = ["--inh-caps=+net_raw,+net_admin", "--ambient-caps=+net_raw,+net_admin"]
    p.serve([programs / "postgres", "-D", data, "-c", "fsync=off", "-c", "listen_addresses=*", "-k", data], 5432,
            wrap=[*as_user, *caps, *p.server_wrap])
    text = p.file.path.read_bytes().hex()
    lines = "\n".join(text[i:i + 4000] for i in range(0, len(text), 4000)) + "\n"

    def psql(*words, **options):
        return p.client([programs / "psql", "-qAtX", "-h", FAR, "-U", "postgres", *words], **options)

    psql("-c", "create table t (n serial, line text)")
    psql("-c", "copy t (line) from stdin", stdin=lines.encode())
    got = psql("-c", "copy (select line from t order by n) to stdout")
    p.check(user.pw_uid != 0, "a user of its own")
    p.same(bytes.fromhex(got.decode().replace("\n", "")))


# -- connections in number

@app("20 curls at once", ["curl"])
def many(p):
    p.nginx(workers=2)
    wrong = []

    def one(i):
        with contextlib.ExitStack() as stack:
            stack.callback(lambda: None)
            try:
                p.same(p.client(["curl", "-sS", p.url()], timeout=60))
            except Wrong as error:
                wrong.append(error)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise wrong[0]
