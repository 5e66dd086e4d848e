"""Floor 1: processes, sockets, namespaces, the layout on disk, the sidecar JSON, status.

Nothing here knows what a service does. The hook imports from this floor, so its modules stay free of
imports that cost milliseconds: no asyncio, dataclasses, pathlib, subprocess or typing at run time.
"""
