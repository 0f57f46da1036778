#!/bin/sh
# Two hosts and two paths of 50 Mbit/s and 20 ms round trip, and a prompt in
# the client. With arguments: runs them there and cleans up.
#
#      client                     50 Mbit/s, 10 ms each way                 server
#   eth0 10.10.1.2  fd00:10:1::2 ====== link 0 ====== 10.10.1.1  fd00:10:1::1 eth0
#   eth1 10.10.2.2  fd00:10:2::2 ====== link 1 ====== 10.10.2.1  fd00:10:2::1 eth1
#
#   tests/lab.sh                                       a prompt; "link help" there
#   tests/lab.sh curl -o /dev/null http://10.10.1.1:8000/size/10000000
#   tests/lab.sh --rate 20M,10M --delay 10ms,40ms --pcap /tmp/run mptcp-run curl ...
#
# The server host has an HTTP server on port 8000 (kernel MPTCP; GET, PUT and
# /size/N). Everything is removed at the end,
# and after ^C, SIGTERM or a closed terminal; see tests/lab/topology.py.
tests=$(cd "$(dirname "$0")" && pwd) || exit
[ "$(id -u)" = 0 ] || { echo "tests/lab.sh needs root, to make network namespaces" >&2; exit 77; }

PYTHONPATH=$tests${PYTHONPATH:+:$PYTHONPATH} exec /usr/bin/python3 -m lab "$@"
