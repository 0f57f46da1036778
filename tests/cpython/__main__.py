"""CPython's own socket tests over kernel TCP and under mptcp-run: `make cpython-tests [MODULES="test_socket ..."]`.

The tests connect to "localhost", which the shim leaves to the kernel. So that their connections are carried, the host's
name for itself is made an address that only the network brings back:

    host      10.99.0.1: "localhost" and, in a copy of the test package, 127.0.0.1. An address of lo without its local route
              eth0 10.10.1.2, eth1 10.10.2.2; default routes to the router
    router    masquerades what is for 10.99.0.1 as 10.98.0.1 and sends it back

Every connection to it leaves by eth0 (and eth1, when a second subflow joins) and comes back to the listening program:
the engine sees an ordinary remote peer, client and server are both under the shim, and nothing in the shim or the engine
is told of it. What the host receives for the address is local by a rule for packets that came in (iif eth0, eth1), and
for those from 127.0.0.0/8, the engine's own end of an accepted connection. The kernel alone runs in the same network.

Prints the tests whose outcome is worse under the shim; with --all every outcome; --write puts the modules' lines into
docs/cpython-tests.md. Status 1: a difference is not explained there.
"""
import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))
import lab.topology as topology  # noqa: E402
from lab.host import PYTHON  # noqa: E402
from lab.shim import shim  # noqa: E402

SELF = "10.99.0.1"
PATIENCE = 12  # tests of a module that may end its process; each may take a minute
MODULES = """test_socket test_asyncio.test_events test_asyncio.test_streams test_asyncio.test_server test_asyncio.test_sock_lowlevel
test_asyncio.test_selector_events test_asyncio.test_sendfile test_asyncio.test_buffered_proto test_asyncio.test_sslproto
test_asyncio.test_ssl test_ssl test_httplib test_ftplib test_smtplib test_poplib test_imaplib test_nntplib test_telnetlib
test_selectors test_socketserver test_urllib2_localnet test_httpservers test_xmlrpc test_asyncore test_asynchat test_epoll
test_poll test_select test_robotparser test_docxmlrpc test_logging test_wsgiref test_multiprocessing_fork test_timeout test_eintr
test_smtpd test_urllib test_largefile test_os""".split()

NAT = f"""
table ip back {{
    chain postrouting {{ type nat hook postrouting priority 100; ip daddr {SELF} snat to 10.98.0.1; }}
}}
"""


def network():
    lab = topology.Lab(kernel_mptcp=True, families={4, 6})
    with topology._closed_on_error(lab):
        host, router = lab.add_host("client"), lab.add_host("router")
        router.sysctl({"ipv4/ip_forward": 1, "ipv4/conf/all/send_redirects": 0, "ipv4/conf/default/send_redirects": 0})
        host.sysctl({"ipv4/ip_nonlocal_bind": 1, "ipv4/conf/all/rp_filter": 0, "ipv4/conf/default/rp_filter": 0})
        router.ip("addr", "add", "10.98.0.1/32", "dev", "lo")
        for i in (0, 1):
            topology._cable(lab, ((host, f"eth{i}"), (router, f"eth{i}")))
            topology.add_interface(router, f"eth{i}", f"10.10.{i + 1}.254")
            topology.add_interface(host, f"eth{i}", f"10.10.{i + 1}.2",
                                   routes=[f"route add default via 10.10.{i + 1}.254 dev eth{i} metric {100 * (i + 1)}"])
            host.ip("rule", "add", "iif", f"eth{i}", "lookup", "100")
        host.ip("rule", "add", "iif", "lo", "from", "127.0.0.0/8", "lookup", "100")
        host.ip("addr", "add", f"{SELF}/32", "dev", "lo")
        host.ip("route", "del", "local", SELF, "dev", "lo", "table", "local")
        host.ip("route", "add", "local", SELF, "dev", "lo", "table", "100")
        router.ip("route", "add", SELF, "via", "10.10.1.2", "dev", "eth0")
        router.nft(NAT)
    return lab


def names(host):
    """What ip-netns(8) puts over /etc/hosts for the programs in this host."""
    etc = Path("/etc/netns", host.ns)
    etc.mkdir(parents=True)
    host._cleanups.append(lambda: shutil.rmtree(etc, ignore_errors=True))
    (etc / "hosts").write_text(f"{SELF} localhost\n::1 ip6-localhost\n")


def copy_of_tests(to):
    """The test package with the host's own address in place of the loopback's."""
    import test
    source = Path(test.__file__).parent
    shutil.copytree(source, to / "test", symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "libregrtest"))
    for path in (to / "test").rglob("*.py"):
        text = path.read_text(errors="surrogateescape")
        if "127.0.0.1" in text:
            path.write_text(text.replace("127.0.0.1", SELF), errors="surrogateescape")


def outcomes(host, directory, module, wrap):
    """{test id: (outcome, text)}; tests that never end are left out one by one."""
    found, out_ids, ended = {}, [], 0
    while True:
        output = directory / f"{module}-{len(wrap)}-{ended}"
        process = host.popen([*wrap, PYTHON, HERE / "one.py", module, output, *out_ids], env={"PYTHONPATH": directory},
                             cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(1200)
        except subprocess.TimeoutExpired:
            pass
        host.stop(process)
        lines = [line.split("\t") for line in output.read_text().splitlines()] if output.exists() else []
        for outcome, name, text in (line for line in lines if len(line) == 3):
            if outcome != "started" and found.get(name, ("",))[0] != "failed":
                found[name] = outcome, text
        pending = [name for outcome, name, *_ in lines if outcome == "started" and name not in found]
        if not pending or ended == PATIENCE:
            return found
        found[pending[-1]] = "failed", "does not end, or ends the process"
        out_ids = list(found)
        ended += 1


def explained():
    """The names of tests in the first column of the page's list of differences: other words of it are no explanation."""
    page = (ROOT / "docs/cpython-tests.md").read_text().partition("## What differs")[2].partition("\n## ")[0]
    return {name.split(".")[-1] for row in page.splitlines() if row.startswith("|") for name in re.findall("`([^`]+)`", row.split("|")[1])}


def write(lines):
    """The latest run of each module, in the page's list of them."""
    path = ROOT / "docs/cpython-tests.md"
    before, block, after = path.read_text().split("```\n", 2)
    kept = dict(line.split(":", 1) for line in block.splitlines())
    kept.update(line.split(":", 1) for line in lines)
    path.write_text("```\n".join((before, "".join(f"{m}:{text}\n" for m, text in kept.items()), after)))


def main():
    parser = argparse.ArgumentParser(prog="cpython")
    parser.add_argument("modules", nargs="*")
    parser.add_argument("--all", action="store_true", help="print every outcome")
    parser.add_argument("--write", action="store_true", help="put the results into docs/cpython-tests.md")
    parser.add_argument("--engine", default="auto")
    args = parser.parse_args()
    known_names, total, carried, new, lines = explained(), 0, 0, 0, []
    with network() as lab:
        names(lab.client)
        directory = Path(lab.client.scratch("tests-"))
        copy_of_tests(directory)
        for module in args.modules or MODULES:
            bare = outcomes(lab.client, directory, module, [])
            before = lab.hosts["router"].nstat().get("IpForwDatagrams", 0)
            under = outcomes(lab.client, directory, module, shim(f"--engine={args.engine}"))
            carried += lab.hosts["router"].nstat().get("IpForwDatagrams", 0) - before
            worse = [t for t in bare if bare[t][0] == "ok" and under.get(t, ("missing", ""))[0] not in ("ok",)]
            total += len(bare)
            count = {o: sum(v[0] == o for v in bare.values()) for o in ("ok", "failed", "skipped")}
            lines.append(f"{module}: {len(bare)} tests, {count['ok']} pass bare ({count['failed']} fail there, {count['skipped']} skipped); "
                         f"{len(worse)} worse under mptcp-run")
            print(lines[-1], flush=True)
            for test in worse:
                known = test.split(".")[-1] in known_names
                new += not known
                print(f"  {'' if known else 'NEW '}{test}: {' '.join(under.get(test, ('missing', '')))}", flush=True)
            for test in sorted(under) if args.all else ():
                print(f"    {test}: {bare.get(test)} {under[test]}")
    if args.write:
        write(lines)
    print(f"{total} tests; {carried} packets went over the network under mptcp-run; {new} differences that docs/cpython-tests.md does not explain")
    return new > 0


sys.exit(main())
