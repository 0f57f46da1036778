"""Programs that serve: curl fetches from them."""

import os
import shutil
import subprocess
import time

from .place import FAR, PYTHON, Wrong, listing, pids_of, wait_for

APPS, app = listing("server", "both")


@app("python http.server", ["python3"])
def http_server(p):
    p.serve([PYTHON, "-m", "http.server", "8000", "-d", p.file.root], 8000)
    p.curl()


ASYNCIO = """
import asyncio
async def serve(r, w):
    await r.readuntil(b"\\r\\n\\r\\n")
    w.write(b"HTTP/1.0 200 OK\\r\\n\\r\\n")
    with open("%s", "rb") as f: await asyncio.get_running_loop().sendfile(w.transport, f)
    w.close(); await w.wait_closed()
async def main():
    async with await asyncio.start_server(serve, "0.0.0.0", 8000) as s: await s.serve_forever()
asyncio.run(main())
"""


@app("python asyncio, sendfile", ["python3"])
def asyncio(p):
    p.serve([PYTHON, "-c", ASYNCIO % p.file.path], 8000)
    p.curl()


@app("node http", ["node"])
def node(p):
    p.serve(["node", "-e", f"require('http').createServer((q, r) => require('fs').createReadStream('{p.file.path}').pipe(r)).listen(8000)"], 8000)
    p.curl(copies=2)


JAVA = """
import com.sun.net.httpserver.*; import java.net.*; import java.nio.file.*;
public class Serve {
    public static void main(String[] a) throws Exception {
        HttpServer s = HttpServer.create(new InetSocketAddress(8000), 0);
        s.createContext("/", e -> { byte[] b = Files.readAllBytes(Path.of(a[0])); e.sendResponseHeaders(200, b.length);
                                    try (var o = e.getResponseBody()) { o.write(b); } });
        s.start();
    }
}
"""


@app("java HttpServer", ["java", "javac"])
def java(p):
    (p.dir / "Serve.java").write_text(JAVA)
    p.serve(["java", p.dir / "Serve.java", p.file.path], 8000)
    p.curl(copies=2)


@app("nginx", ["nginx"])
def nginx(p):
    p.nginx()
    p.curl(copies=2)


@app("nginx, upload", ["nginx", "curl"])
def nginx_upload(p):
    put = p.dir / "put"
    put.mkdir(mode=0o777)
    p.nginx(more=f"server {{ listen 8002; root {put}; location / {{ dav_methods PUT; }} }}")
    p.client(["curl", "-sS", "-T", p.file.path, f"http://{FAR}:8002/up"])
    p.same(put / "up")


def reload_nginx(p, daemon=""):
    """A transfer is under way while the workers are replaced; the next goes to the new ones."""
    running = subprocess.Popen(p.lab.client.argv([*p.client_wrap, "curl", "-sS", "--limit-rate", "4M", "-o", p.dir / "got", p.url()]))
    time.sleep(0.3)
    pid = int((p.dir / "nginx" / "nginx.pid").read_text())
    before = set(pids_of(p.lab.server, "nginx"))
    os.kill(pid, 1)
    wait_for(lambda: set(pids_of(p.lab.server, "nginx")) - before, "new workers")
    p.curl()
    if running.wait(30):
        raise Wrong("the transfer under way at the reload broke")
    p.same(p.dir / "got")


@app("nginx, 2 workers, reload", ["nginx"])
def nginx_reload(p):
    p.nginx(workers=2)
    p.curl()
    reload_nginx(p)


@app("nginx, 2 workers, reuseport", ["nginx"])
def nginx_reuseport(p):
    p.nginx(workers=2, listen=" reuseport")
    for _ in range(3):
        p.curl()


@app("nginx, daemon", ["nginx"])
def nginx_daemon(p):
    p.certificate()
    prefix = p.dir / "nginx"
    prefix.mkdir()
    from .place import NGINX
    text = NGINX.format(root=p.file.root, workers=2, dir=p.dir, more="", listen="").replace("daemon off", "daemon on")
    (prefix / "nginx.conf").write_text(text)
    starter = p.serve(["/usr/sbin/nginx", "-p", prefix, "-c", prefix / "nginx.conf", "-e", prefix / "error.log"], 8000)
    wait_for(lambda: starter.poll() is not None, "nginx leaves for the background")
    p.curl()
    reload_nginx(p)


HAPROXY = """\
global
    {daemon}
    pidfile {dir}/haproxy.pid
    stats socket {dir}/haproxy.sock expose-fd listeners
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend f
    bind 0.0.0.0:8080
    default_backend b
backend b
    server s 127.0.0.1:8000
"""


@app("haproxy, daemon, reload", ["haproxy", "nginx"])
def haproxy(p):
    p.nginx(wrap=[])                                   # behind it, on loopback
    (p.dir / "haproxy.cfg").write_text(HAPROXY.format(daemon="daemon", dir=p.dir))
    p.serve(["haproxy", "-f", p.dir / "haproxy.cfg"], 8080)
    p.curl(8080)
    old = (p.dir / "haproxy.pid").read_text().split()
    p.serve(["haproxy", "-f", p.dir / "haproxy.cfg", "-x", p.dir / "haproxy.sock", "-sf", *old])
    wait_for(lambda: (p.dir / "haproxy.pid").read_text().split() != old, "the new haproxy")
    wait_for(lambda: not os.path.exists(f"/proc/{old[0]}"), "the old haproxy's end")
    p.curl(8080)


APACHE = """\
ServerRoot {dir}
ServerName lab
PidFile {dir}/apache.pid
ErrorLog {dir}/apache.log
Mutex file:{dir}
Listen 8000
LoadModule mpm_prefork_module /usr/lib/apache2/modules/mod_mpm_prefork.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
StartServers 3
User www-data
Group www-data
DocumentRoot {root}
<Directory {root}>
  Require all granted
</Directory>
"""


@app("apache, prefork", ["apache2"])
def apache(p):
    (p.dir / "apache.conf").write_text(APACHE.format(dir=p.dir, root=p.file.root))
    p.serve(["apache2", "-f", p.dir / "apache.conf", "-DFOREGROUND"], 8000)
    for _ in range(4):
        p.curl()


@app("socat, fork, EXEC", ["socat"])
def socat(p):
    p.serve(["socat", "TCP-LISTEN:8000,fork,reuseaddr", f"EXEC:cat {p.file.path}"], 8000)
    p.same(p.client(["socat", "-u", f"TCP:{FAR}:8000", "-"]))


@app("ncat, keep open, exec", ["ncat"])
def ncat(p):
    p.serve(["ncat", "-lk", "8000", "--sh-exec", f"cat {p.file.path}"], 8000)
    p.same(p.client(["ncat", "--recv-only", FAR, "8000"]))


@app("openssl s_server", ["openssl"])
def s_server(p):
    p.certificate()
    shutil.copy(p.file.path, p.dir / "f")
    p.serve(["openssl", "s_server", "-quiet", "-WWW", "-accept", "8443", "-cert", p.dir / "cert.pem", "-key", p.dir / "key.pem"], 8443, cwd=p.dir)
    p.same(p.client(["curl", "-sS", "--http0.9", "--cacert", p.dir / "cert.pem", f"https://{FAR}:8443/f"]))


@app("busybox httpd", ["busybox"])
def busybox(p):
    p.serve(["busybox", "httpd", "-f", "-p", "8000", "-h", p.file.root], 8000)
    p.curl()


XINETD = """\
service lab
{{
    type = UNLISTED
    socket_type = stream
    protocol = tcp
    port = 8000
    wait = no
    user = root
    server = /bin/cat
    server_args = {file}
}}
"""


@app("xinetd", ["xinetd"])
def xinetd(p):
    (p.dir / "xinetd.conf").write_text(XINETD.format(file=p.file.path))
    p.serve(["xinetd", "-dontfork", "-f", p.dir / "xinetd.conf", "-pidfile", p.dir / "xinetd.pid"], 8000)
    p.same(p.client(["socat", "-u", f"TCP:{FAR}:8000", "-"]))


ACTIVATED = """
import os, socket
l = socket.socket(fileno=3)
while True:
    s, _ = l.accept()
    with s, open("%s", "rb") as f: s.sendfile(f)
"""


@app("socket activation", ["systemd-socket-activate"], note="systemd-socket-activate starts it with the listener as descriptor 3")
def activation(p):
    (p.dir / "served.py").write_text(ACTIVATED % p.file.path)
    env = [f"--setenv={name}" for name in ("LD_PRELOAD",)]
    p.serve(["systemd-socket-activate", "-l", "0.0.0.0:8000", *env, PYTHON, p.dir / "served.py"], 8000)
    for _ in range(2):
        p.same(p.client(["socat", "-u", f"TCP:{FAR}:8000", "-"]))
