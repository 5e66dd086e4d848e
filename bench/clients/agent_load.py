"""One client of an SSH agent that asks for signatures as fast as it gets them.

`python -I -S agent_load.py SOCKET REQUEST_HEX SECONDS kept|new` waits for a line on stdin, works, and prints the number
of signatures and the latencies in microseconds (p50, p99).
"""

from __future__ import annotations

import socket
import sys
import time


def main() -> None:
    """Ask until the time is over."""
    path, request, seconds, mode = sys.argv[1], bytes.fromhex(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
    sys.stdin.readline()
    latencies = []
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        if mode == "new":
            client.close()
            client = socket.socket(socket.AF_UNIX)
            client.connect(path)
        client.sendall(request)
        answer = client.recv(4096)
        if answer[4] != 14:
            raise SystemExit("the agent refused")
        latencies.append(time.perf_counter() - began)
    latencies.sort()
    count = len(latencies)
    print(count, latencies[count // 2] * 1e6, latencies[count * 99 // 100] * 1e6)


main()
