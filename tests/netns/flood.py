"""Opens many TLS connections at once in the network namespace in which it is started, and tells what became of them.

`python flood.py ADDRESS PORT NAME COUNT SECONDS`: each sends a whole hello for NAME and is left at the server's
first flight. Prints how many were answered with a handshake record, and how many ended otherwise.
"""

from __future__ import annotations

import errno
import resource
import select
import socket
import ssl
import sys
import time


def hello(name: str) -> bytes:
    """The first flight of a client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    sent = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return sent.read()


def main(address: str, port: str, name: str, count: str, seconds: str) -> None:
    """Flood, and print the two numbers."""
    end = time.monotonic() + float(seconds)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    first = hello(name)
    waiting = select.epoll()
    clients: dict[int, socket.socket] = {}
    for _ in range(int(count)):
        client = socket.socket()
        client.setblocking(False)
        if client.connect_ex((address, int(port))) in (0, errno.EINPROGRESS):
            clients[client.fileno()] = client
            waiting.register(client.fileno(), select.EPOLLOUT)
    answered = ended = 0
    while clients and (left := end - time.monotonic()) > 0:
        for fd, events in waiting.poll(left):
            try:
                if events & select.EPOLLOUT:
                    clients[fd].send(first)
                    waiting.modify(fd, select.EPOLLIN)
                    continue
                record = clients[fd].recv(1)
            except BlockingIOError:
                continue
            except OSError:
                record = b""
            answered += record == b"\x16"
            ended += record != b"\x16"
            clients.pop(fd).close()
    print(answered, ended)


if __name__ == "__main__":
    main(*sys.argv[1:])
