"""`make install`, `make uninstall` and the Debian package: what is put where, that it works there, and that nothing stays."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from lab import make_file
from lab.shim import ROOT, curl

pytestmark = pytest.mark.xdist_group("package")     # make works in one directory
USER = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def make(*words, **env):
    done = subprocess.run(["make", "-s", "-C", ROOT, *words], capture_output=True, text=True, env={**os.environ, **env})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(tree):
    return {str(path.relative_to(tree)) for path in tree.rglob("*") if not path.is_dir()}


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    tree = tmp_path_factory.mktemp("staged")
    make("install", f"DESTDIR={tree}")
    return tree


def test_install_puts_everything_in_its_place(staged):
    got = files(staged)
    for name in ("bin/mptcp-run", "bin/mptcp-stat", "lib/libmpshim/libmpshim.so", "lib/libmpshim/libmpshim-engine.so",
                 "lib/libmpshim/libmpshim-resolve.so", "lib/libmpshim/mpshim-engine", "lib/pkgconfig/mpshim.pc", "include/mpshim.h",
                 "share/man/man1/mptcp-run.1", "share/man/man1/mptcp-stat.1", "share/man/man7/mpshim.7",
                 "share/bash-completion/completions/mptcp-run", "share/zsh/site-functions/_mptcp-run"):
        assert f"usr/local/{name}" in got
    run = subprocess.run([staged / "usr/local/bin/mptcp-run", "--config=none", "sh", "-c", "echo $LD_PRELOAD"], capture_output=True, text=True)
    assert run.stdout.strip().endswith(f"{staged}/usr/local/lib/libmpshim/libmpshim.so")


@pytest.mark.needs("pkg-config")
def test_pkg_config_finds_it(staged):
    env = {**os.environ, "PKG_CONFIG_PATH": str(staged / "usr/local/lib/pkgconfig")}
    ask = lambda *words: subprocess.run(["pkg-config", *words, "mpshim"], env=env, capture_output=True, text=True, check=True).stdout.strip()
    assert ask("--cflags-only-I") in ("-I/usr/local/include", "") and ask("--variable=preload") == "/usr/local/lib/libmpshim/libmpshim.so"
    version = subprocess.run([staged / "usr/local/bin/mptcp-run", "--version"], capture_output=True, text=True).stdout.split()[1]
    assert ask("--modversion") == version


@pytest.mark.needs("pkg-config")
def test_the_example_builds_against_what_is_installed(staged, tmp_path):
    env = {**os.environ, "PKG_CONFIG_PATH": str(staged / "usr/local/lib/pkgconfig"), "PKG_CONFIG_SYSROOT_DIR": str(staged)}
    flags = subprocess.run(["pkg-config", "--cflags", "mpshim"], env=env, capture_output=True, text=True, check=True).stdout.split()
    assert flags == [f"-I{staged}/usr/local/include"]
    for words in (["-x", "c", "-std=c11", "-D_DEFAULT_SOURCE"], ["-x", "c++", "-fsyntax-only"]):
        subprocess.run(["cc", "-Wall", "-Werror", *words, *flags, "-o", tmp_path / "paths", *([ROOT / "examples/paths.c"] if "c" in words else [staged / "usr/local/include/mpshim.h"])], check=True)
    assert subprocess.run([tmp_path / "paths"], capture_output=True, text=True).returncode == 2


def test_uninstall_leaves_nothing(tmp_path):
    make("install", f"DESTDIR={tmp_path}")
    make("uninstall", f"DESTDIR={tmp_path}")
    assert files(tmp_path) == set()


# ---- manual pages

def test_every_setting_is_in_the_manual(staged):
    page = (staged / "usr/local/share/man/man7/mpshim.7").read_text()
    names = re.findall(r"^X\(\w+, *\w+, *(\w+)", "".join((ROOT / "libmpshim" / p).read_text() for p in ("core/settings.def", "shim/settings.def")), re.M)
    assert len(names) > 15 and all(f"MPSHIM_{name} ." in page for name in names)
    assert "@SETTINGS@" not in page


def test_every_option_is_in_its_manual(staged):
    for tool in "mptcp-run", "mptcp-stat":
        page = (staged / f"usr/local/share/man/man1/{tool}.1").read_text().replace("\\-", "-")
        text = subprocess.run([staged / "usr/local/bin" / tool, "--help"], capture_output=True, text=True).stdout.split("Settings;")[0]
        options = re.findall(r"(?<!\S)--\w+", text)
        assert len(options) > 4 and not [o for o in options if o not in page], (tool, options)


@pytest.mark.needs("groff")
def test_manual_pages_are_well_formed(staged):
    for page in (staged / "usr/local/share/man").rglob("*.[17]"):
        done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-rCHECKSTYLE=1", page], capture_output=True, text=True)
        assert done.returncode == 0 and not done.stderr, done.stderr


# ---- the Debian package

@pytest.fixture(scope="module")
def package():
    if not shutil.which("dpkg-buildpackage") or os.geteuid():
        pytest.skip("needs root and dpkg-buildpackage")
    made = make("deb", CC="ccache gcc" if shutil.which("ccache") else "gcc", CCACHE_BASEDIR=str(ROOT), CCACHE_NOHASHDIR="1")
    return ROOT / made.split()[-1]


def dpkg(root, *words):
    done = subprocess.run(["dpkg", f"--root={root}", "--force-depends", "--force-script-chrootless", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def root(package):
    """A throw-away root directory with the package installed by dpkg."""
    tree = Path(tempfile.mkdtemp(prefix="mpshim-root-"))
    tree.chmod(0o755)
    (tree / "var/lib/dpkg/updates").mkdir(parents=True)
    (tree / "var/lib/dpkg/info").mkdir()
    (tree / "var/lib/dpkg/status").touch()
    dpkg(tree, "--install", package)
    yield tree
    shutil.rmtree(tree)


@pytest.mark.needs("curl", "mptcpize", "setpriv")
def test_the_installed_package_works_for_a_user_and_goes_away(root, lab):
    net, file = lab.two_path(rate="50M", families="v4"), make_file(4_000_000)
    server = net.server.spawn_http(file.root)
    got = curl(net.client, server.url(file.name), wrap=[*USER, root / "usr/bin/mptcp-run", "-v"])
    assert got.sha256 == file.sha256 and "multipath over" in got.told
    dpkg(root, "--purge", "mpshim")
    assert not [name for name in files(root) if not name.startswith("var/")]


def test_the_package_names_what_it_needs(package):
    fields = subprocess.run(["dpkg-deb", "--field", package, "Depends"], capture_output=True, text=True, check=True).stdout
    for library in "libc6", "libev4", "libmnl0", "libjansson4", "libcap2-bin", "libinih1", "libc-ares2":
        assert library in fields
