"""Labs: hosts, links between them, and their removal.

two_path: two Ethernet links, each a path and a subnet of its own; no ip rule.

    client                       wire                       server
    eth0 10.10.1.2, fd00:10:1::2 --- link 0 --- eth0 10.10.1.1, fd00:10:1::1
    eth1 10.10.2.2, fd00:10:2::2 --- link 1 --- eth1 10.10.2.1, fd00:10:2::1

two_routers: the client has two default routes (metric 100 and 200) and no
ip rule; the server stands behind both routers, which know all addresses.

    eth0 10.10.1.2 --- link 0 --- eth0 .254 router0 eth1 .254 --- 10.20.1.1 eth0
    eth1 10.10.2.2 --- link 1 --- eth0 .254 router1 eth1 .254 --- 10.20.2.1 eth1
    client                                         10.30.0.1 on lo of the server

Without options a link gives 50 Mbit/s and 10 ms each way (20 ms RTT), with a
drop-tail queue of 100 ms at that rate.
"""

import atexit
import contextlib
import itertools
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path

from . import netns
from .host import Host, Interface
from .wire import Wire

DEFAULT_LINK = {"rate": "50M", "delay": "10ms", "queue": "100ms"}
CONGESTION = "cubic"
KERNEL_MPTCP = Path("/proc/sys/net/mptcp")

_numbers = itertools.count()
_open_labs = []


class Lab:
    """A set of hosts. A context manager; removed at exit in any case."""

    def __init__(self, kernel_mptcp=True, families=(4, 6)):
        _prepare_process()
        self.families = families
        self.prefix = f"mpl-{os.getpid()}-{next(_numbers)}"
        self.kernel_mptcp = kernel_mptcp and KERNEL_MPTCP.exists()
        self.hosts, self.wire, self.wire_ns = {}, None, None
        _open_labs.append(self)

    @property
    def link(self):
        """The emulated links: lab.link[1].set(loss=0.01). Empty if direct."""
        return self.wire.links if self.wire else []

    @property
    def client(self):
        return self.hosts["client"]

    @property
    def server(self):
        return self.hosts["server"]

    def add_host(self, role):
        host = self.hosts[role] = Host(self, role)
        host.ip("link", "set", "lo", "up")
        host.sysctl({"ipv6/conf/all/accept_dad": 0, "ipv6/conf/default/accept_dad": 0,
                     "ipv6/conf/default/accept_ra": 0, "ipv6/conf/default/router_solicitations": 0,
                     "ipv6/conf/all/keep_addr_on_down": 1, "ipv6/conf/default/keep_addr_on_down": 1,
                     "ipv4/tcp_no_metrics_save": 1})
        if KERNEL_MPTCP.exists():
            host.sysctl({"mptcp/enabled": int(self.kernel_mptcp)})
        if 6 not in self.families:                   # on interfaces to come: lo keeps ::1
            host.sysctl({"ipv6/conf/default/disable_ipv6": 1})
        return host

    def add_wire(self):
        """Makes the namespace of the emulator; its devices are made with the hosts'."""
        self.wire_ns = f"{self.prefix}-wire"
        netns.create(self.wire_ns)
        netns.sysctl(self.wire_ns, {"ipv6/conf/all/disable_ipv6": 1, "ipv6/conf/default/disable_ipv6": 1})

    def start_wire(self, links):
        """Starts the emulator on the links, each given by its settings."""
        netns.ip_batch([f"link set l{i}{end} up" for i in range(len(links)) for end in "ab"], ns=self.wire_ns)
        control = Path(tempfile.gettempdir(), f"{self.prefix}.sock")
        self.wire = Wire(self.wire_ns, len(links), control)
        for link, settings in zip(self.link, links):
            link.set(**settings)

    @contextlib.contextmanager
    def slowly(self, rate="5M"):
        """All links at this rate meanwhile: what is under way is not over before this machine, however busy, has changed what it is
        to meet."""
        before = [link.settings["rate"] for link in self.link]
        for link in self.link:
            link.set(rate=rate)
        yield
        for link, was in zip(self.link, before):
            link.set(rate=was)

    def close(self):
        """Ends all programs and removes all namespaces; may be called twice."""
        with contextlib.ExitStack() as stack:        # each step runs, whatever fails
            stack.callback(self._forget)
            if self.wire_ns:
                stack.callback(netns.remove, self.wire_ns)
            if self.wire:
                stack.callback(self.wire.close)
            for host in self.hosts.values():
                stack.callback(host.close)
        self.hosts, self.wire, self.wire_ns = {}, None, None

    def _forget(self):
        if self in _open_labs:
            _open_labs.remove(self)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


@contextlib.contextmanager
def _closed_on_error(lab):
    try:
        yield lab
    except BaseException:
        lab.close()
        raise


def _prepare_process():
    """Once: remove leftovers of the dead, and see to it that we leave none."""
    if getattr(_prepare_process, "done", False):
        return
    _prepare_process.done = True
    netns.sweep()
    atexit.register(_close_all)
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, lambda number, _: sys.exit(128 + number))


def _close_all():
    for lab in list(_open_labs):
        lab.close()


# -- building blocks

def _families(families):
    """"v4", "v6" or "both" as a set of 4 and 6."""
    return {"v4": {4}, "v6": {6}, "both": {4, 6}}[families]


def _address_lines(device, addresses):
    return [f"addr add {address}/{64 if ':' in address else 24} dev {device}"
            + (" nodad" if ":" in address else "") for address in addresses if address]


def _subnet(address):
    return address.rsplit(":", 1)[0] + ":/64" if ":" in address else address.rsplit(".", 1)[0] + ".0/24"


def _on_link_lines(device, addresses):
    """The routes that the kernel made with the addresses, with our congestion control."""
    return [f"route replace {_subnet(address)} dev {device} proto kernel metric {256 if ':' in address else 0}"
            + (f" src {address} scope link" if ":" not in address else "")
            + f" congctl {CONGESTION}" for address in addresses if address]


def add_interface(host, name, v4="", v6="", routes=()):
    """Configures an existing device: addresses, on-link routes with cubic, more routes."""
    on_link = _on_link_lines(name, (v4, v6))
    interface = Interface(name, v4, v6, routes=[*on_link, *routes])
    host.interfaces.append(interface)
    host.ip_batch([f"link set {name} up", *_address_lines(name, (v4, v6)), *interface.routes])
    return interface


def set_offloads(host, device, on):
    """All of a veth end's offloads: with them off, frames are as on a wire."""
    state = "on" if on else "off"
    host.run(["ethtool", "-K", device, *(word for what in ("tx", "tso", "gso", "gro") for word in (what, state))])


def _veth_line(name, ns, peer, peer_ns, mtu):
    return f"link add {name} mtu {mtu} netns {ns} type veth peer name {peer} mtu {mtu} netns {peer_ns}"


def _cable(lab, ends, link=None, mtu=1500):
    """Veth between two (host, device) ends: through emulated link number `link`, or direct."""
    (a, device_a), (b, device_b) = ends
    if link is None:
        netns.ip_batch([_veth_line(device_a, a.ns, device_b, b.ns, mtu)])
        return
    netns.ip_batch([_veth_line(device_a, a.ns, f"l{link}a", lab.wire_ns, mtu),
                    _veth_line(device_b, b.ns, f"l{link}b", lab.wire_ns, mtu)])
    for host, device in ends:
        set_offloads(host, device, False)


def _link_settings(n, per_link, **common):
    """Settings of each link: defaults, overridden by `common` (scalars, or one value
    a link), overridden by the dictionaries of `per_link`."""
    common = {key: value for key, value in common.items() if value is not None}
    links = []
    for i in range(n):
        mine = {key: value[i] if isinstance(value, (list, tuple)) else value for key, value in common.items()}
        links.append({**DEFAULT_LINK, **mine, **(per_link[i] if per_link else {})})
    return links


def _kernel_mptcp_setup(host, role, families):
    """What an administrator would configure for the kernel's path manager. A role
    of "subflow" or "signal" is given to the addresses of the last interface."""
    if not host.lab.kernel_mptcp:
        return
    host.ip("mptcp", "limits", "set", "subflows", "4", "add_addr_accepted", "4")
    interface = host.interfaces[-1]
    for family in sorted(families) if role else ():
        address = interface.v4 if family == 4 else interface.v6
        host.ip("mptcp", "endpoint", "add", address, "dev", interface.name, role)


# -- topologies

def two_path(families="both", rate=None, delay=None, queue=None, loss=None, links=None, mtu=1500,
             direct=False, offloads=True, kernel_mptcp=True, n=2, rp_filter=0, firewall=False,
             client_role=None, server_role="signal"):
    """Client and server with n separate links; see the module's text.

    rate, delay (one way), queue, loss: one value, or a list with one per link.
    links: a list of dictionaries with any of linkem's settings.
    direct: plain veth instead of emulated links, its offloads on or off.
    rp_filter: of the client (1: strict). firewall: the client drops what its
    connection tracking calls invalid. client_role, server_role: of the second
    address, for the kernel's path managers. With a client_role of "subflow" too,
    the kernel opens a third subflow, from eth1 to the server's first address.
    """
    chosen = _families(families)
    lab = Lab(kernel_mptcp, chosen)
    with _closed_on_error(lab):
        client, server = lab.add_host("client"), lab.add_host("server")
        if not direct:
            lab.add_wire()
        for i in range(n):
            device = f"eth{i}"
            _cable(lab, ((client, device), (server, device)), None if direct else i, mtu)
            for host, number in ((client, 2), (server, 1)):
                add_interface(host, device, f"10.10.{i + 1}.{number}" if 4 in chosen else "",
                              f"fd00:10:{i + 1}::{number}" if 6 in chosen else "")
                if direct and not offloads:
                    set_offloads(host, device, False)
        if not direct:
            lab.start_wire(_link_settings(n, links, rate=rate, delay=delay, queue=queue, loss=loss))
        _finish(lab, rp_filter, [client] * firewall)
        _kernel_mptcp_setup(client, client_role if n > 1 else None, chosen)
        _kernel_mptcp_setup(server, server_role if n > 1 else None, chosen)
    return lab


def two_routers(server_addresses=2, rate=None, delay=None, queue=None, loss=None, links=None, mtu=1500,
                kernel_mptcp=True, rp_filter=0, firewall=None, nat=()):
    """Client with two default routes, server behind two routers; IPv4 only.

    server_addresses: 2 (10.20.1.1 and 10.20.2.1) or 1 (10.30.0.1, by both routers;
    then server.address(0) is that one). firewall: "client", or the number of a
    router, that drops what connection tracking calls invalid. nat: numbers of the
    routers that masquerade.
    """
    lab = Lab(kernel_mptcp, {4})
    with _closed_on_error(lab):
        client, server = lab.add_host("client"), lab.add_host("server")
        routers = [lab.add_host(f"router{i}") for i in (0, 1)]
        lab.add_wire()
        for i, router in enumerate(routers):
            _join_router(lab, i, router, mtu)
        if server_addresses == 1:
            _one_address(server, routers)
        lab.start_wire(_link_settings(2, links, rate=rate, delay=delay, queue=queue, loss=loss))
        for i in nat:
            routers[i].nft(MASQUERADE)
        guarded = [client] if firewall == "client" else [] if firewall is None else [routers[firewall]]
        _finish(lab, rp_filter, guarded)
        _kernel_mptcp_setup(client, "subflow", {4})
        _kernel_mptcp_setup(server, "signal" if server_addresses == 2 else None, {4})
    return lab


def _join_router(lab, i, router, mtu):
    """Path i: client -- emulated link -- router -- server."""
    client, server = lab.client, lab.server
    near, far, other = f"10.10.{i + 1}", f"10.20.{i + 1}", f"10.20.{2 - i}"
    router.sysctl({"ipv4/ip_forward": 1})
    _cable(lab, ((client, f"eth{i}"), (router, "eth0")), i, mtu)
    _cable(lab, ((router, "eth1"), (server, f"eth{i}")), None, mtu)
    set_offloads(router, "eth1", False)
    set_offloads(server, f"eth{i}", False)
    add_interface(router, "eth0", f"{near}.254")
    add_interface(router, "eth1", f"{far}.254", routes=[f"route add {other}.0/24 via {far}.1"])
    add_interface(client, f"eth{i}", f"{near}.2", routes=[
        f"route replace default via {near}.254 dev eth{i} metric {100 * (i + 1)} src {near}.2 congctl {CONGESTION}"])
    add_interface(server, f"eth{i}", f"{far}.1", routes=[
        f"route replace {near}.0/24 via {far}.254 dev eth{i} congctl {CONGESTION}"])


def _one_address(server, routers):
    """The server is one address, which both routers know; the other two stay for the routers."""
    server.ip("addr", "add", "10.30.0.1/32", "dev", "lo")
    server.interfaces.insert(0, Interface("lo", "10.30.0.1"))
    for i, router in enumerate(routers):
        router.ip("route", "add", "10.30.0.1", "via", f"10.20.{i + 1}.1")
        server.ip("route", "replace", f"10.10.{i + 1}.0/24", "via", f"10.20.{i + 1}.254", "dev", f"eth{i}",
                  "src", "10.30.0.1", "congctl", CONGESTION)


def _finish(lab, rp_filter, guarded):
    if rp_filter:
        names = ["all", "default", *(interface.name for interface in lab.client.interfaces)]
        lab.client.sysctl({f"ipv4/conf/{name}/rp_filter": rp_filter for name in names})
    for host in guarded:
        host.nft(DROP_INVALID)


DROP_INVALID = """
table inet lab_firewall {
    chain input   { type filter hook input priority 0; ct state invalid counter drop; }
    chain forward { type filter hook forward priority 0; ct state invalid counter drop; }
    chain output  { type filter hook output priority 0; ct state invalid counter drop; }
}
"""

MASQUERADE = """
table ip lab_nat {
    chain postrouting { type nat hook postrouting priority 100; oifname "eth1" masquerade; }
}
"""
