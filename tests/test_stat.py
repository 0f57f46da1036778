"""mptcp-stat: what it tells of live connections, of inside engines and of the helper, to whom."""

import json
import os
import re
import signal
import subprocess

import pytest

from lab import make_file
from lab.shim import ROOT, CurlRun, curl, shim

STAT = ROOT / os.environ.get("B", "build") / "mptcp-stat"
pytestmark = pytest.mark.needs("curl", "mptcpize")


def stat(host, *options, check=True, wrap=()):
    return host.run([*wrap, STAT, *options], check=check)


def snapshot(host, *options):
    return json.loads(stat(host, "--json", *options).stdout)


@pytest.fixture
def busy(lab):
    """A lab, and a download over two paths in it that takes its time."""
    def start(*options, wrap_server=(), mptcp=True):
        net = lab.two_path(rate="10M", families="v4", kernel_mptcp=mptcp)
        file = make_file(40_000_000)
        net.http = net.server.spawn_http(file.root, mptcp=mptcp, wrap=wrap_server)
        run = CurlRun(net.client, net.http.url(file.name), wrap=shim(*options))
        run.wait_for(1_000_000)
        return net, run
    return start


@pytest.mark.parametrize("engine", ["inside", "helper"])
def test_a_download_is_shown_with_both_paths(busy, engine):
    net, run = busy(f"--engine={engine}")
    (told,) = [e for e in snapshot(net.client, "--interval=0.5") if e["connections"]]  # a helper may have the will of the other
    assert told["helper"] == (engine == "helper")
    (conn,) = told["connections"]
    assert conn["program"] == "curl" and conn["multipath"] and conn["remote"].endswith(":8000") and conn["why"] == ""
    assert {s["interface"] for s in conn["subflows"]} == {"eth0", "eth1"}
    assert sum(s["rx_share"] for s in conn["subflows"]) == pytest.approx(1)
    assert all(s["srtt_us"] > 5000 and s["cwnd"] > 0 and s["state"] == "ESTABLISHED" for s in conn["subflows"])
    assert conn["rx_rate"] > 100_000 and conn["rcv_wnd"] > 0
    net.client.stop(run.process)


def test_the_table_has_a_line_for_each_path(busy):
    net, run = busy()
    out = stat(net.client).stdout
    rows = out.splitlines()
    assert rows[0].split()[:4] == ["PROGRAM", "LOCAL", "REMOTE", "STATE"]
    assert rows[1].startswith("curl/") and " MPTCP " in rows[1]
    assert [row.split()[0] for row in rows[2:4]] == ["eth0", "eth1"] or [row.split()[0] for row in rows[2:4]] == ["eth1", "eth0"]
    assert re.search(r"^(1 engine|2 engines), 1 connection: 1 multipath, 0 plain TCP; \S+ bit/s in", rows[-1])
    assert stat(net.client, "nobody", check=False).returncode == 1
    assert "curl/" in stat(net.client, "curl", ":8000", "eth1").stdout
    net.client.stop(run.process)


def test_watch_draws_again(busy):
    net, run = busy()
    watch = net.client.popen([STAT, "--watch=0.2"], stdout=subprocess.PIPE)
    tables = 0
    while tables < 3:
        tables += watch.stdout.readline().startswith("PROGRAM")
    net.client.stop(watch)
    net.client.stop(run.process)


def test_both_ends_under_the_shim(busy):
    net, run = busy(wrap_server=shim(), mptcp=False)
    (told,) = snapshot(net.server)
    assert told["helper"] and told["listeners"][0]["at"].endswith(":8000")
    (conn,) = told["connections"]
    assert conn["server"] and conn["tx_rate"] > 100_000
    assert sum(s["tx_share"] for s in conn["subflows"]) == pytest.approx(1)
    net.client.stop(run.process)


def test_what_was_not_measured_is_no_zero(busy):
    net, run = busy()
    rows = stat(net.client, "--interval=0").stdout.splitlines()
    assert [row.split()[4:6] for row in rows[1:4]] == [["-", "-"]] * 3 and "bit/s" not in rows[-1]
    (told,) = snapshot(net.client, "--interval=0")
    assert "rx_rate" not in told["connections"][0] and told["connections"][0]["subflows"][0]["rx_share"] > 0
    net.client.stop(run.process)


def test_words_that_nothing_matches_are_said_to_match_nothing(busy):
    net, run = busy()
    none = stat(net.client, "nosuch", check=False)
    assert none.returncode == 1 and none.stdout.startswith("none of these; in all: 1 engine, 1 connection")
    assert stat(net.client, "curl", "eth1").returncode == 0
    net.client.stop(run.process)


def test_plain_tcp_says_why(lab):
    net = lab.two_path(rate="20M", families="v4")
    file = make_file(40_000_000)
    http = net.server.spawn_http(file.root, mptcp=False)
    run = CurlRun(net.client, http.url(file.name), wrap=shim("--engine=helper"))
    run.wait_for(1_000_000)
    out = stat(net.client).stdout
    assert re.search(r"^curl/\d+ .* TCP ", out, re.M) and "plain TCP: the peer or the path has no MPTCP" in out
    (told,) = snapshot(net.client)
    assert [p["peer"] for p in told["plain_peers"]] == [f"{net.server.address()}:8000"]
    curl(net.client, http.url("size/1"), wrap=shim("--engine=helper"))
    assert "left to the kernel so far: 1 the peer is known not to speak MPTCP" in stat(net.client).stdout
    net.client.stop(run.process)


def test_counters_are_summed_and_chosen_by_name(busy):
    net, run = busy()
    out = stat(net.client, "--counters", "join_up", "subflow_up").stdout
    assert re.search(r"^join_up +1  joins established$", out, re.M) and re.search(r"^subflow_up +2 ", out, re.M)
    assert "rto " not in out and re.search(r"^fallback +0 ", stat(net.client, "--counters", "--all").stdout, re.M)
    assert re.search(r"^pkt_in +\d+ +[1-9][\d.]*/s", stat(net.client, "-c", "-i0.3", "pkt_in").stdout, re.M)
    net.client.stop(run.process)


@pytest.mark.needs("setpriv")
def test_other_users_are_told_nothing(busy):
    net, run = busy()
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    done = stat(net.client, "--json", wrap=nobody, check=False)
    assert json.loads(done.stdout) == [] and "other users" in done.stderr
    net.client.stop(run.process)


def test_nothing_stays_when_an_engine_is_killed(busy):
    net, run = busy()
    (told,) = snapshot(net.client)
    os.kill(told["pid"], 9)
    run.process.wait(10)
    assert snapshot(net.client) == [] and "mpshim/" not in net.client.run(["cat", "/proc/net/unix"]).stdout


def test_a_false_engine_is_not_believed(lab):
    """Somebody else takes a name that looks like root's engine."""
    net = lab.two_path(direct=True, families="v4")
    code = ("import socket,time\ns=socket.socket(socket.AF_UNIX)\ns.bind('\\0mpshim/0/1/1')\ns.listen()\nprint('x', flush=True)\n"
            "while True:\n  c,_=s.accept(); c.sendall(b'{\"connections\":[{\"program\":\"false\"}]}'); c.close()\n")
    fake = net.client.popen(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", code],
                            stdout=subprocess.PIPE)
    fake.stdout.readline()
    assert snapshot(net.client) == []


def test_an_engine_that_is_stopped_holds_nobody_up(busy):
    """Each question stays in its queue, and a full queue lets nobody in."""
    net, run = busy("--engine=inside")
    os.kill(run.process.pid, signal.SIGSTOP)
    asking = [net.client.popen([STAT, "--json", "--interval=0"], stdout=subprocess.PIPE) for _ in range(20)]  # the queue holds 17
    assert [json.loads(p.communicate(timeout=20)[0]) for p in asking] == [[]] * 20
    os.kill(run.process.pid, signal.SIGCONT)
    net.client.stop(run.process)


def test_words_for_the_terminal_are_printable(lab):
    """Another user's program may say what it likes where root looks."""
    net = lab.two_path(direct=True, families="v4")
    said = r"""{"connections": [{"pid": 1, "local": "\u001b]0;title\u0007 \"quoted\" \\ \n\r\u009b2J", "remote": "\u00e9 \ud83d\ude00"}], "left_to_kernel": {"\u001b[2J": 1}}"""
    code = ("import socket\ns=socket.socket(socket.AF_UNIX)\ns.bind('\\0mpshim/65534/1/1')\ns.listen()\nprint('x', flush=True)\n"
            f"while True:\n  c,_=s.accept(); c.sendall({said.encode()!r}); c.close()\n")
    fake = net.client.popen(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", code], stdout=subprocess.PIPE)
    fake.stdout.readline()
    (told,) = snapshot(net.client, "--interval=0")
    assert told["connections"][0]["local"] == '?]0;title? "quoted" \\ ???2J' and told["connections"][0]["remote"] == "? ??"
    assert stat(net.client, "--interval=0").stdout.replace("\n", "").isprintable()
