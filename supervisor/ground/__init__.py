"""What floor 1 stands on: errors, processes, kernel calls, sockets, the event loop, and every path on disk."""
