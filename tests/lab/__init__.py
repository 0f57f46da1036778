"""The test lab: hosts in network namespaces, emulated links between them.

    with two_path(rate="50M", delay="10ms") as lab:
        file = make_file(1 << 20)
        server = lab.server.spawn_http(file.root)
        transfer = download(lab.client, server.url(file.name), mptcp=True)
        assert transfer.sha256 == file.sha256

topology.py has the topologies drawn, linkem/ the links and their middleboxes.
"""

from .host import Host, Interface, Server
from .netns import sweep
from .topology import CONGESTION, DEFAULT_LINK, Lab, set_offloads, two_path, two_routers
from .traffic import TestFile, Transfer, download, make_file, start_fetch, upload
from .wire import Link, Wire, build

__all__ = ["CONGESTION", "DEFAULT_LINK", "Host", "Interface", "Lab", "Link", "Server", "TestFile",
           "Transfer", "Wire", "build", "download", "make_file", "set_offloads", "start_fetch",
           "sweep", "two_path", "two_routers", "upload"]
