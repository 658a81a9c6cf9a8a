"""Ports for servers of the tests' own."""

import socket


def reserved(host: str = "127.0.0.1") -> socket.socket:
    """Return a socket that keeps a free port, which only a server that is told of it can listen on.

    It does not listen, so whoever connects while the server is down is refused. A server that sets SO_REUSEADDR, as
    nearly all do, can bind to the same port.
    """
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, 0))
    return sock
