"""Opens many connections, sends each a byte of a ClientHello a second, and tells how many were ended.

`python slow.py ADDRESS PORT COUNT SECONDS`, in the namespace in which it is started. What the full queue of the
listener has dropped is tried again by TCP for minutes: after SECONDS the rest is given up.
"""

from __future__ import annotations

import errno
import resource
import select
import socket
import sys
import time

HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(400)


def main(address: str, port: str, count: str, seconds: str) -> None:
    """Print the number of connections that were ended from the other side."""
    end = time.monotonic() + float(seconds)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    waiting = select.epoll()
    clients: dict[int, socket.socket] = {}
    for _ in range(int(count)):
        client = socket.socket()
        client.setblocking(False)
        if client.connect_ex((address, int(port))) not in (0, errno.EINPROGRESS):
            continue
        clients[client.fileno()] = client
        waiting.register(client.fileno(), select.EPOLLIN)
    ended, sent, due = 0, 0, time.monotonic()
    while clients and time.monotonic() < end:
        if time.monotonic() >= due:
            for client in clients.values():
                try:
                    client.send(HELLO[sent : sent + 1])
                except OSError:
                    pass  # not connected yet, or just ended: epoll tells
            sent, due = sent + 1, time.monotonic() + 1
        for fd, _ in waiting.poll(max(0.0, due - time.monotonic())):
            try:
                if clients[fd].recv(4096):
                    continue  # the alert
            except BlockingIOError:
                continue
            except OSError:
                pass
            clients.pop(fd).close()
            ended += 1
    print(ended)


if __name__ == "__main__":
    main(*sys.argv[1:])
