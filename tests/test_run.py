"""mptcp-run: settings from flags, the environment and files; programs it cannot reach; --strict."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab import make_file
from lab.shim import MPTCP_RUN, CurlRun, Watch, curl, engines, shim

PYTHON = "/usr/bin/python3"
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


@pytest.fixture
def home(tmp_path):
    (tmp_path / ".config").mkdir()
    return tmp_path


def run(home, *words, env=None, system=None, status=0):
    """mptcp-run with this home directory and, where given, this text in /etc/mpshim.conf."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MPSHIM_", "LD_PRELOAD", "XDG_"))}
    command = [str(MPTCP_RUN), *map(str, words)]
    if system is not None:
        if os.geteuid():
            pytest.skip("needs root, to put a file into /etc")
        (home / "system.conf").write_text(system)
        script = f"mount -t tmpfs none /etc && cp '{home}/system.conf' /etc/mpshim.conf && exec \"$@\""
        command = ["unshare", "-m", "sh", "-c", script, "sh", *command]
    done = subprocess.run(command, env={**clean, "HOME": str(home), **(env or {})}, capture_output=True, text=True, timeout=30)
    assert done.returncode == status, done.stdout + done.stderr
    return done


def settings(home, *words, **options):
    """{name: (value, where from)}, and what was complained of."""
    done = run(home, *words[:-1] if words and not words[-1].startswith("-") else words, "--settings",
               *words[-1:] if words and not words[-1].startswith("-") else (), **options)
    rows = [line.split(None, 2) for line in done.stdout.splitlines()[1:]]
    return {row[0]: (row[1], row[2]) if len(row) > 2 else ("", row[1]) for row in rows}, done.stderr


def write(home, text):
    (home / ".config/mpshim.conf").write_text(text)


# ---- precedence

def test_defaults(home):
    got, told = settings(home, system="")
    assert got["cc"] == ("lia", "default") and got["checksum"] == ("on", "default") and not told


def test_each_source_counts_more_than_the_one_before(home):
    system = "cc = reno\nio = raw\nmax_subflows = 2\nsyn-tries = 3\n[curl]\nio = fast\n"
    write(home, "max_subflows = 3\nsyn_tries = 4\n[curl]\nsyn_tries = 5\n")
    got, told = settings(home, "--rcvbuf-kb=100", "curl", system=system, env={"MPSHIM_SNDBUF_KB": "200"})
    assert not told
    assert got["cc"] == ("reno", "/etc/mpshim.conf:1")
    assert got["io"] == ("fast", "/etc/mpshim.conf:6")
    assert got["max-subflows"] == ("3", f"{home}/.config/mpshim.conf:1")
    assert got["syn-tries"] == ("5", f"{home}/.config/mpshim.conf:4")
    assert got["sndbuf-kb"] == ("200", "MPSHIM_SNDBUF_KB") and got["rcvbuf-kb"] == ("100", "--rcvbuf-kb")
    got, _ = settings(home, "wget", system=system)
    assert got["io"][0] == "raw" and got["syn-tries"][0] == "4"
    got, _ = settings(home, "--syn-tries=6", "/usr/bin/curl", system=system, env={"MPSHIM_SYN_TRIES": "7"})
    assert got["syn-tries"] == ("6", "--syn-tries") and got["io"][0] == "fast"


def test_another_file_or_none(home, tmp_path):
    write(home, "cc = reno\n")
    other = tmp_path / "other.conf"
    other.write_text("cc = cubic  ; a comment\n# another\n")
    assert settings(home, f"--config={other}")[0]["cc"][0] == "cubic"
    assert settings(home, "--config=none", system="cc = cubic\n")[0]["cc"] == ("lia", "default")
    for wrong, why in ("/nowhere", "No such file"), (tmp_path, "Is a directory"): # it may say what must not be carried
        done = run(home, f"--config={wrong}", "echo", "started", status=2)
        assert why in done.stderr and not done.stdout


def test_a_file_that_cannot_be_read_is_told(home):
    (home / ".config/mpshim.conf").mkdir(parents=True)
    assert "mpshim.conf: Is a directory" in settings(home)[1]


def test_a_log_that_cannot_be_opened_is_told(home):
    done = run(home, "-v", "--log=/nowhere/log", "echo", "started", status=2)
    assert done.stderr == "mptcp-run: --log=/nowhere/log: No such file or directory\n" and not done.stdout
    done = run(home, "-v", "echo", "started", env={"MPSHIM_LOG": "/nowhere/log"})
    assert done.stderr == "mptcp-run: MPSHIM_LOG=/nowhere/log: No such file or directory\n" and done.stdout == "started\n"
    assert run(home, "--log=/nowhere/log", "echo", "started").stderr == ""
    run(home, "-v", f"--log={home}/log", "true")
    assert (home / "log").exists()


def test_switches(home):
    got, _ = settings(home, "--strict", "--no-checksum")
    assert got["strict"][0] == "on" and got["checksum"][0] == "off"
    assert "possible: on off" in run(home, "--strict=maybe", "true", status=2).stderr
    assert "needs a value" in run(home, "--cc", "true", status=2).stderr


# ---- every process of the command takes its own section

PROBE = "import os; print('conf', os.environ.get('MPSHIM_CONF'))"


def test_sections_reach_the_programs_that_the_command_starts(home):
    write(home, "verbose = 1\n[nobody*]\ncc = reno\n[python3*]\nverbose = 2\nexclude = 10.0.0.0/8,\n  :25\n")
    out = run(home, "sh", "-c", f'{PYTHON} -c "{PROBE}"', system="cc = cubic\n[dd]\nio = raw\n").stdout
    assert out == "conf CC=cubic;[dd];IO=raw;[];VERBOSE=1;[nobody*];CC=reno;[python3*];VERBOSE=2;EXCLUDE=10.0.0.0/8,:25;[];\n"


def verdict(home, *words, **options):
    """What the library says of a connection to a far place, in a python that sh starts."""
    code = "import socket; s = socket.socket(); s.settimeout(0.1); s.connect_ex(('192.0.2.7', 443))"
    return run(home, *words, "sh", "-c", f'{PYTHON} -c "{code}"', **options).stderr


def test_the_library_heeds_its_section_and_the_environment_more(home):
    write(home, "[python3*]\nverbose = 1\nexclude = 192.0.2.0/24:1-500\n")
    assert "192.0.2.7:443: kernel TCP: excluded" in verdict(home, "--engine=inside")
    assert verdict(home, "--engine=inside", "--verbose=0") == ""
    assert "excluded" not in verdict(home, "--engine=inside", "--exclude=:25")
    write(home, "[perl]\nverbose = 1\n")
    assert verdict(home, "--engine=never") == ""


def test_strict_refuses_where_a_section_wants_no_engine(home):
    write(home, "[python3*]\nverbose = 1\nengine = never\n")
    assert "192.0.2.7:443: kernel TCP: no engine is to run (engine=never)" in verdict(home)
    write(home, "[python3*]\nverbose = 1\nengine = never\nstrict = on\n")
    assert "192.0.2.7:443: refused (strict): no engine is to run (engine=never)" in verdict(home)


def test_a_long_list(home):
    """A list over a hundred lines is handed on whole and once; what goes beyond the room for lists is told and left out."""
    code = "import os; print(os.environ['MPSHIM_CONF'])"
    lines = [f"10.{n}.0.0/16:1000-{2000 + n}" for n in range(100)]
    write(home, "exclude = " + "\n  ".join(lines) + "\nio = raw\n")
    done = run(home, PYTHON, "-c", code)
    assert done.stdout == f"EXCLUDE={','.join(lines)};IO=raw;\n" and not done.stderr
    assert "192.0.2.7:443: kernel TCP: excluded" in verdict(home, "--verbose=1", "--exclude=" + ",".join(lines + ["192.0.2.7"]))
    write(home, "exclude = " + "\n  ".join(lines * 2) + "\nio = raw\n")
    done = run(home, PYTHON, "-c", code)
    exclude, io, *_ = done.stdout.split(";")
    assert io == "IO=raw" and exclude.removeprefix("EXCLUDE=").split(",") == (lines * 2)[:exclude.count(",") + 1]
    assert f"mpshim.conf:{exclude.count(',') + 2}: the list is longer than 4095 characters or 512 entries" in done.stderr


# ---- what is wrong is told, with what was meant

@pytest.mark.parametrize("name, meant", [("ccc", "cc"), ("MAX_SUBFLOW", "max-subflows"), ("intrefaces", "interfaces"), ("sched", "scheduler")])
def test_unknown_names_are_told_with_the_nearest(home, name, meant):
    said = f"no such setting; is {meant} meant?"
    assert said in run(home, f"--{name}=1", "true", status=2).stderr
    assert f"MPSHIM_{name}: {said}" in run(home, "true", env={f"MPSHIM_{name}": "1"}).stderr
    write(home, f"\n{name} = 1\n")
    assert f"mpshim.conf:2: {name}: {said}" in run(home, "true").stderr


@pytest.mark.parametrize("name", ["wibblewobble", "foo"])
def test_nothing_like_it(home, name):
    told = run(home, f"--{name}=1", "true", status=2).stderr
    assert "no such setting" in told and "meant" not in told


@pytest.mark.parametrize("line, said", [("cc = nonsense", "possible: lia"), ("max-subflows = 99", "possible: 1..8"),
                                        ("exclude = 10.0.0.0/33", "possible: ADDRESS"), ("log = /tmp/a;b", "semicolon"),
                                        ("a line of words", "neither"), ("exclude = " + "10.0.0.1," * 50, "longer than 199")])
def test_wrong_lines_of_a_file_are_told_and_left_out(home, line, said):
    write(home, f"# first\n{line}\nio = raw\n")
    got, told = settings(home)
    assert f"mpshim.conf:2: " in told and said in told
    assert got["io"][0] == "raw" and got["cc"][0] == "lia"


@pytest.mark.parametrize("rules, good", [
    ("10.0.0.0/8", True), ("10.1.2.3:22", True), ("10.0.0.0/8:22-25", True), (":25", True), ("*:25", True), ("fd00::/8", True),
    ("[fd00::/8]:443", True), ("[::1]", True), ("1.2.3.4, :80 ,fd00::1", True), ("", True),
    ("10.0.0.0/33", False), ("10.0.0", False), (":0x10", False), (":99999", False), (":30-20", False), ("[fd00::1", False),
    ("*", False), ("host.example:80", False), ("10.0.0.0/8/8", False), ("[fd00::1]x", False), ("10.0.0.1:", False)])
def test_exclusion_rules(home, rules, good):
    run(home, f"--exclude={rules}", "true", status=0 if good else 2)


# ---- programs that it cannot reach

def build(tmp_path, name, *flags):
    out = tmp_path / name
    subprocess.run(["gcc", "-x", "c", "-o", out, *flags, "-"], input="int main(void) { return 7; }", text=True, check=True)
    return out


def test_a_static_program_is_told_and_run(home, tmp_path):
    program = build(tmp_path, "static", "-static")
    assert "statically linked" in run(home, program, status=7).stderr
    assert "statically linked" in run(home, "--strict", program, status=125).stderr


def test_sudo_is_told_of(home, tmp_path):
    """It takes LD_PRELOAD away from root's programs too."""
    sudo = tmp_path / "sudo"
    sudo.write_text("#!/bin/sh\nexit 7\n")
    sudo.chmod(0o755)
    assert "sudo: takes LD_PRELOAD from what it starts" in run(home, sudo, "true", status=7).stderr


def test_a_script_is_its_interpreter(home, tmp_path):
    program = build(tmp_path, "static", "-static")
    script = tmp_path / "script"
    script.write_text(f"#! {program} -x\n")
    script.chmod(0o755)
    assert f"{program}" in run(home, script, status=7).stderr
    script.write_text("#!/bin/sh\nexit 3\n")
    assert run(home, script, status=3).stderr == ""


def test_another_c_library_is_not_preloaded(home, tmp_path):
    loader = tmp_path / "ld-musl-x86_64.so.1"
    program = build(tmp_path, "foreign", f"-Wl,--dynamic-linker={loader}")
    shutil.copy(re.search(r"interpreter: (\S+?)\]", subprocess.run(["readelf", "-l", sys.executable], capture_output=True, text=True).stdout)[1], loader)
    assert "another C library" in run(home, program, status=7).stderr


@pytest.mark.needs("setcap", "setpriv")
def test_set_user_id_and_capabilities_are_told(tmp_path, home):
    if os.geteuid():
        pytest.skip("needs root, to make such programs")
    for parent in (tmp_path, *tmp_path.parents):
        if not parent.stat().st_mode & 1 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o11)
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in "mptcp-run", "libmpshim.so":
        shutil.copy(MPTCP_RUN.resolve().parent / name, tree)
    suid, capable = build(tmp_path, "suid"), build(tmp_path, "capable")
    suid.chmod(0o4755)
    subprocess.run(["setcap", "cap_net_raw+ep", capable], check=True)
    for program, said in (suid, "set-user-ID"), (capable, "file capabilities"):
        done = subprocess.run([*NOBODY, tree / "mptcp-run", program], capture_output=True, text=True)
        assert done.returncode == 7 and said in done.stderr
        done = subprocess.run([*NOBODY, tree / "mptcp-run", "--strict", program], capture_output=True, text=True)
        assert done.returncode == 125 and said in done.stderr


def test_a_kept_ld_preload(home):
    out = run(home, "sh", "-c", "echo $LD_PRELOAD", env={"LD_PRELOAD": "libm.so.6"}).stdout
    assert re.fullmatch(r"libm\.so\.6:/.*/libmpshim\.so\n", out)


def test_a_place_that_ld_preload_cannot_name(tmp_path, home):
    """The loader would take the name for two, complain of both, and run the command on kernel TCP, with --strict too."""
    tree = tmp_path / "with space"
    tree.mkdir()
    for name in "mptcp-run", "libmpshim.so":
        shutil.copy(MPTCP_RUN.resolve().parent / name, tree)
    done = subprocess.run([tree / "mptcp-run", "echo", "run"], capture_output=True, text=True, env={"PATH": os.environ["PATH"], "HOME": str(home)})
    assert done.stdout == "run\n" and "a space or a colon" in done.stderr and "kernel TCP" in done.stderr and "ld.so" not in done.stderr, done
    done = subprocess.run([tree / "mptcp-run", "--env"], capture_output=True, text=True)
    assert done.returncode == 1 and not done.stdout


def test_env_makes_a_program_use_the_library_without_the_wrapper(home):
    write(home, "verbose = 1\n[python3*]\nexclude = 192.0.2.0/24\n")
    lines = run(home, "--env", "--drain-ms=5").stdout.splitlines()
    env = {line.split("=", 1)[0]: line.split("=", 1)[1].strip('"') for line in lines}
    assert env["MPSHIM_DRAIN_MS"] == "5"
    code = "import socket; s = socket.socket(); s.settimeout(0.1); s.connect_ex(('192.0.2.7', 443))"
    done = subprocess.run([PYTHON, "-c", code], env=env, capture_output=True, text=True)
    assert "excluded" in done.stderr


# ---- printed from the same list

def test_bash_completion_knows_every_setting(home, tmp_path):
    script = tmp_path / "completion"
    script.write_text(run(home, "--completion=bash").stdout)
    ask = "source {}; COMP_WORDS=({}) COMP_CWORD={}; _mptcp_run; printf '%s\\n' \"${{COMPREPLY[@]}}\""

    def complete(*words):
        quoted = " ".join(f"'{w}'" for w in words)
        return subprocess.run(["bash", "-c", ask.format(script, quoted, len(words) - 1)], capture_output=True, text=True, check=True).stdout.split()

    assert {"--cc=", "--strict", "--no-strict", "--check"} <= set(complete("mptcp-run", "-"))
    assert complete("mptcp-run", "--cc", "=", "cu") == ["cubic"] and "raw" in complete("mptcp-run", "--io", "=")
    assert "cat" in complete("mptcp-run", "-v", "ca")
    names = [line.split()[0].split("=")[0].rstrip(",") for line in run(home, "--help").stdout.splitlines() if line.startswith("  --")]
    offered = {w.strip("=") for w in complete("mptcp-run", "--")}
    assert set(names) <= offered


@pytest.mark.needs("zsh")
def test_zsh_completion_is_zsh(home, tmp_path):
    (tmp_path / "_mptcp-run").write_text(run(home, "--completion=zsh").stdout)
    subprocess.run(["zsh", "-n", tmp_path / "_mptcp-run"], check=True)


# ---- --strict in the network

pytest_needs_lab = pytest.mark.needs("curl", "mptcpize")


@pytest_needs_lab
def test_strict_starts_nothing_where_one_path_is_all(lab, home):
    net = lab.two_path(direct=True, families="v4")
    done = net.client.run(shim("--strict", "true"), check=False)
    assert done.returncode == 0 and done.stderr == ""
    net.client.link_down(1)
    done = net.client.run(shim("--strict", "echo", "started"), check=False)
    assert done.returncode == 125 and "MISSING" in done.stderr and "second interface" in done.stderr and "started\n" not in done.stdout


@pytest_needs_lab
@pytest.mark.parametrize("engine", ["inside", "helper"])
def test_strict_refuses_a_peer_without_mptcp(lab, engine):
    net, file = lab.two_path(families="v4"), make_file(100_000)
    plain = net.server.spawn_http(file.root, mptcp=False)
    multi = net.server.spawn_http(file.root, port=8001)
    wrap = shim("-v", "--strict", f"--engine={engine}")
    assert curl(net.client, multi.url(file.name), wrap=wrap).sha256 == file.sha256
    for _ in range(2):
        got = curl(net.client, plain.url(file.name), wrap=wrap, check=False)
        assert got.status == 7 and "plain TCP: the peer or the path has no MPTCP" in got.told, got.told
    code = f"import socket, errno\nprint(errno.errorcode[socket.socket().connect_ex(('{net.server.address()}', 8000))])"
    assert net.client.run([*wrap, PYTHON, "-c", code]).stdout == "EPROTONOSUPPORT\n"
    excluded = curl(net.client, plain.url(file.name), wrap=[*wrap, "--exclude=:8000"])
    assert excluded.sha256 == file.sha256 and "kernel TCP: excluded" in excluded.told


@pytest_needs_lab
def test_strict_refuses_what_a_rule_by_source_address_routes_apart(lab):
    """Such a connection stays on the kernel's way; that is no wish of the user's to have it carried without MPTCP."""
    net, file = lab.two_path(direct=True, families="v4"), make_file(1000)
    server = net.server.spawn_http(file.root)
    net.client.ip("rule", "add", "from", net.client.address(), "lookup", "5")
    net.client.ip("route", "add", "default", "dev", "eth1", "table", "5")
    got = curl(net.client, server.url(file.name), wrap=shim("-v"), check=False, timeout=5)
    assert "kernel TCP: routed apart" in got.told
    got = curl(net.client, server.url(file.name), wrap=shim("-v", "--strict"), check=False, timeout=5)
    assert got.status == 7 and "refused (strict): routed apart" in got.told


@pytest_needs_lab
def test_strict_refuses_a_client_without_mptcp(lab):
    net, file = lab.two_path(families="v4"), make_file(100_000)
    log = Path(net.server.scratch("log-"), "log")
    server = net.server.spawn_http(file.root, mptcp=False, wrap=shim("--strict", "-v", f"--log={log}"), congestion=None)
    assert curl(net.client, server.url(file.name), check=False).status in (52, 56)
    assert "strict, and it would be plain TCP" in log.read_text()
    assert curl(net.client, server.url(file.name), wrap=["mptcpize", "run"]).sha256 == file.sha256


@pytest_needs_lab
def test_excluded_destinations_are_the_kernels(lab):
    net, file = lab.two_path(families="v4"), make_file(100_000)
    server = net.server.spawn_http(file.root)
    for rules in ":8000", "10.0.0.0/8", f"{net.server.address()}:7999-8001":
        got = curl(net.client, server.url(file.name), wrap=shim("-v", f"--exclude={rules}"))
        assert "kernel TCP: excluded" in got.told and got.sha256 == file.sha256
    for names in "nope0", "eth1", "-eth0":
        got = curl(net.client, server.url(file.name), wrap=shim("-v", f"--interfaces={names}"))
        assert "kernel TCP: no suitable interface" in got.told and got.sha256 == file.sha256
    for rules in ":8001", "192.168.0.0/16", f"{net.server.address()}:80":
        got = curl(net.client, server.url(file.name), wrap=shim("-v", f"--exclude={rules}"))
        assert "MPTCP over" in got.told and got.sha256 == file.sha256


@pytest_needs_lab
def test_settings_count_though_a_helper_with_others_runs(lab):
    """Of two programs at once, each has its own."""
    net, file = lab.two_path(rate="20M", families="v4"), make_file(20_000_000)
    server = net.server.spawn_http(file.root)
    first = CurlRun(net.client, server.url(file.name), wrap=shim("--engine=helper"))
    first.wait_for(500_000)
    with Watch(net) as seen:
        got = curl(net.client, server.url("size/1000000"), wrap=shim("-v", "--engine=helper", "--interfaces=-eth1", "--cc=cubic"))
    assert "MPTCP over eth0" in got.told and "eth1" not in got.told
    assert first.process.poll() is None and seen.moved(net.client, "eth1") > 0
    assert len(engines(net.client)) == 2
    net.client.stop(first.process)


@pytest_needs_lab
def test_a_backup_interface_carries_only_when_needed(lab):
    net, file = lab.two_path(families="v4"), make_file(8_000_000)
    server = net.server.spawn_http(file.root)
    with Watch(net) as seen:
        assert curl(net.client, server.url("put"), wrap=shim("--backup=eth1"), put=file).sha256 == file.sha256
    assert seen.moved(net.client, "eth1") < 400_000 and seen.mptcp(net.server, "MPJoinAckRx") >= 1
    before, end = net.server.traffic()["eth0"][0], time.monotonic() + 20
    run = CurlRun(net.client, server.url("put"), wrap=shim("--backup=eth1"), put=file)
    while net.server.traffic()["eth0"][0] < before + 1_000_000:
        assert time.monotonic() < end
        time.sleep(0.01)
    net.link[0].blackhole()
    assert run.result().sha256 == file.sha256


@pytest_needs_lab
@pytest.mark.parametrize("box", ["strip-syn", "strip-nonsyn"])
def test_strict_on_a_path_that_strips_options(lab, box):
    """At the handshake the connection fails; after it, what came before is delivered and then it is reset."""
    net, file = lab.two_path(families="v4"), make_file(2_000_000)
    server = net.server.spawn_http(file.root)
    for link in net.link:
        link.hook(box)
    got = curl(net.client, server.url(file.name), wrap=shim("-v", "--strict"), check=False, timeout=20)
    assert got.status != 0 and "strict, and it would be plain TCP" in got.told, got.told
    assert curl(net.client, server.url(file.name), wrap=shim()).sha256 == file.sha256
