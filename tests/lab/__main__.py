"""A lab with a prompt in the client; `tests/lab.sh --help`."""

import argparse
import os
import subprocess
import sys

from .topology import DEFAULT_LINK, two_path, two_routers
from .wire import build


def parse():
    parser = argparse.ArgumentParser(
        prog="tests/lab.sh", description="Two hosts, two paths; runs a command in the client, or a prompt.",
        epilog="At the prompt: mptcp-run and mptcp-stat are this tree's; server CMD... runs in the server, link set 0 both loss=0.01 changes a link, "
               "link stats, link help. The server serves HTTP on port 8000 (kernel MPTCP).")
    parser.add_argument("-t", "--topology", choices=["two_path", "two_routers"], default="two_path")
    for key, value in DEFAULT_LINK.items():
        parser.add_argument(f"--{key}", default=value, help="of each link, comma between different ones [%(default)s]")
    parser.add_argument("--loss", default="0")
    parser.add_argument("--root", default=".", help="what the server serves [%(default)s]")
    parser.add_argument("--direct", action="store_true", help="plain veth instead of emulated links")
    parser.add_argument("--pcap", metavar="DIR", help="capture each path at the client")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    return parser.parse_args()


def build_lab(options):
    settings = {key: getattr(options, key).split(",") for key in (*DEFAULT_LINK, "loss")}
    settings = {key: value if len(value) > 1 else value[0] for key, value in settings.items()}
    if options.topology == "two_routers":
        return two_routers(**settings)
    return two_path(direct=options.direct, **settings)


def write_helpers(lab):
    """Commands for the prompt: server, link."""
    directory = lab.client.scratch("bin-")
    scripts = {
        "server": f'exec ip netns exec {lab.server.ns} "$@"\n',
        "link": f'exec /usr/bin/python3 -m lab.control {lab.wire.control} "$@"\n' if lab.wire
                else "echo no emulated links >&2; exit 1\n",
    }
    for name, text in scripts.items():
        path = os.path.join(directory, name)
        with open(path, "w") as file:
            file.write("#!/bin/sh\n" + text)
        os.chmod(path, 0o755)
    return directory


def greet(lab, server):
    print(f"client {lab.client.ns}, server {lab.server.ns}")
    for host in (lab.client, lab.server):
        for interface in host.interfaces:
            print(f"  {host.role:7} {interface.name:5} {interface.v4} {interface.v6}")
    print(f"  mptcp-run CMD..., server CMD..., link help|stats|set|hook; {server.url('size/1000000')}")


def main():
    options = parse()
    build()
    with build_lab(options) as lab:
        server = lab.server.spawn_http(os.path.abspath(options.root))
        tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        env = {"PATH": ":".join([write_helpers(lab), os.path.dirname(tests), os.environ["PATH"]]), "PS1": "client# ", "PYTHONPATH": tests}
        if not options.command:
            greet(lab, server)
        if options.pcap:
            start_captures(lab, os.path.abspath(options.pcap))
        command = options.command or ["bash", "--norc"]
        try:
            return subprocess.run(lab.client.argv(command, env)).returncode
        except KeyboardInterrupt:
            return 130


def start_captures(lab, directory):
    """One pcap file a path, until the lab ends."""
    os.makedirs(directory, exist_ok=True)
    for interface in lab.client.interfaces:
        path = os.path.join(directory, f"client-{interface.name}.pcap")
        process = lab.client.popen(["tcpdump", "-Uni", interface.name, "--immediate-mode", "-w", path],
                                   stderr=subprocess.PIPE)
        process.stderr.readline()


if __name__ == "__main__":
    sys.exit(main())
