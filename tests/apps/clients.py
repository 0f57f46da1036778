"""Programs that fetch: from nginx, over HTTP or HTTPS."""

from .place import FAR, PYTHON, Wrong, listing

APPS, fetches = listing("client", "both")


def app(name, needs, **options):
    """As the listing's, run with nginx up."""
    def add(run):
        @fetches(name, needs, **options)
        def with_nginx(p):
            p.nginx()
            run(p)
        return run
    return add


@app("curl, HTTP", ["curl"])
def curl(p):
    p.same(p.client(["curl", "-sS", p.url()]))


@app("curl, HTTPS", ["curl"])
def curl_https(p):
    p.same(p.client(["curl", "-sS", "--cacert", p.certificate(), p.url(port=8443, scheme="https")]))


@app("curl, 8 in parallel", ["curl"])
def curl_parallel(p):
    p.client(["curl", "-sS", "--parallel", "--parallel-max", "8", "-o", p.dir / "got#1", p.url() + "?[1-8]"])
    for i in range(1, 9):
        p.same(p.dir / f"got{i}")


@app("wget", ["wget"])
def wget(p):
    p.same(p.client(["wget", "-q", "-O", "-", p.url()]))


@app("aria2, 4 connections", ["aria2c"])
def aria2(p):
    p.client(["aria2c", "-q", "-x4", "-s4", "-k1M", "-d", p.dir, "-o", "got", p.url()])
    p.same(p.dir / "got")


@app("python urllib", ["python3"])
def urllib(p):
    p.same(p.client([PYTHON, "-c", f"import sys,urllib.request as u; sys.stdout.buffer.write(u.urlopen('{p.url()}').read())"]))


ASYNCIO = """
import asyncio, sys
async def one():
    r, w = await asyncio.open_connection("%s", 8000)
    w.write(b"GET /%s HTTP/1.0\\r\\n\\r\\n")
    body = (await r.read(-1)).split(b"\\r\\n\\r\\n", 1)[1]
    w.close(); await w.wait_closed()
    return body
async def main(): sys.stdout.buffer.write(b"".join(await asyncio.gather(*[one() for i in range(4)])))
asyncio.run(main())
"""


@app("python asyncio, 4 streams", ["python3"])
def asyncio(p):
    p.same(p.client([PYTHON, "-c", ASYNCIO % (FAR, p.file.name)]), 4)


@app("node http", ["node"])
def node(p):
    p.same(p.client(["node", "-e", f"require('http').get('{p.url()}', r => r.pipe(process.stdout))"]))


@app("node fetch, HTTPS", ["node"])
def node_fetch(p):
    code = f"fetch('{p.url(port=8443, scheme='https')}').then(r => r.arrayBuffer()).then(b => process.stdout.write(Buffer.from(b)))"
    p.same(p.client(["node", "-e", code], env={"NODE_EXTRA_CA_CERTS": p.certificate()}))


@app("perl IO::Socket", ["perl"])
def perl(p):
    code = (f'$s=IO::Socket::INET->new("{FAR}:8000"); print $s "GET /{p.file.name} HTTP/1.0\\r\\n\\r\\n"; $s->flush; '
            "local $/; $d=<$s>; $d=~s/^.*?\\r\\n\\r\\n//s; print $d")
    p.same(p.client(["perl", "-MIO::Socket::INET", "-e", code]))


JAVA = """
import java.net.*; import java.net.http.*; import java.nio.file.*;
public class Fetch {
    public static void main(String[] a) throws Exception {
        HttpClient c = HttpClient.newHttpClient();
        HttpRequest r = HttpRequest.newBuilder(URI.create(a[0])).build();
        System.exit(c.send(r, HttpResponse.BodyHandlers.ofFile(Path.of(a[1]))).statusCode() == 200 ? 0 : 1);
    }
}
"""


@app("java HttpClient", ["java", "javac"])
def java(p):
    (p.dir / "Fetch.java").write_text(JAVA)
    p.client(["java", "-Xshare:auto", p.dir / "Fetch.java", p.url(), p.dir / "got"])
    p.same(p.dir / "got")


@app("bash /dev/tcp", ["bash"])
def bash(p):
    p.same(p.shell(f'exec 3<>/dev/tcp/{FAR}/8000; printf "GET /{p.file.name} HTTP/1.0\\r\\n\\r\\n" >&3; cat <&3').split(b"\r\n\r\n", 1)[1])


@app("openssl s_client", ["openssl"])
def s_client(p):
    got = p.client(["openssl", "s_client", "-quiet", "-ign_eof", "-CAfile", p.certificate(), "-connect", f"{FAR}:8443"],
                   stdin=f"GET /{p.file.name} HTTP/1.0\r\n\r\n".encode())
    p.same(got.split(b"\r\n\r\n", 1)[1])


@app("socat", ["socat"])
def socat(p):
    got = p.client(["socat", "-t60", "-", f"TCP:{FAR}:8000,shut-none"], stdin=f"GET /{p.file.name} HTTP/1.0\r\n\r\n".encode())
    p.same(got.split(b"\r\n\r\n", 1)[1])


@app("ncat", ["ncat"])
def ncat(p):
    got = p.client(["ncat", "--no-shutdown", FAR, "8000"], stdin=f"GET /{p.file.name} HTTP/1.0\r\n\r\n".encode())
    p.same(got.split(b"\r\n\r\n", 1)[1])


@app("busybox wget", ["busybox"], note="Debian's busybox is dynamically linked")
def busybox(p):
    p.same(p.client(["busybox", "wget", "-q", "-O", "-", p.url()]))


@app("wrk, 2 threads, 8 connections", ["wrk"])
def wrk(p):
    out = p.client(["wrk", "-t2", "-c8", "-d2s", "--timeout", "20s", p.url()]).decode()
    p.check("Socket errors" not in out and " requests in " in out, out)


@app("ab, 12 requests, 4 at once, keep-alive", ["ab"])
def ab(p):
    out = p.client(["ab", "-q", "-k", "-n12", "-c4", p.url()]).decode()
    if "Failed requests:        0" not in out or "Complete requests:      12" not in out:
        raise Wrong(out)


@app("git clone, HTTP", ["git"], small=True)
def git_http(p):
    from .pairs import make_repository
    make_repository(p, p.dir / "r.git")
    p.serve([PYTHON, "-m", "http.server", "8001", "-d", p.dir], 8001)
    p.client(["git", "clone", "-q", f"http://{FAR}:8001/r.git", p.dir / "clone"], env={"HOME": p.dir})
    p.same(p.dir / "clone" / "big")
