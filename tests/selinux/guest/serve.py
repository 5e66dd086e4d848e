"""serve.py PATH [LABEL]: a Unix socket of an ordinary host process, or one with LABEL, that answers `pong`."""

import os
import socket
import sys

ATTRIBUTE = "/proc/thread-self/attr/sockcreate"


def label_sockets(label: str) -> None:
    fd = os.open(ATTRIBUTE, os.O_WRONLY)
    os.write(fd, label.encode())
    os.close(fd)


path, label = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
if label:
    label_sockets(label)
listener = socket.socket(socket.AF_UNIX)
label_sockets("")
listener.bind(path)
os.chmod(path, 0o666)
# the file gets what its directory has; what is tried is the label of the socket
os.setxattr(path, "security.selinux", os.getxattr(os.path.dirname(path), "security.selinux"))
listener.listen()
while True:
    client, _ = listener.accept()
    try:
        client.sendall(b"pong\n")
    except OSError:
        pass
    client.close()
