"""Cuts the network off: every Python process whose PYTHONPATH holds this folder can reach this machine alone.

Kernels, loader workers and programs that a test starts inherit the variable, so the cut goes wherever the test goes.
"""

import socket

LOCAL = ("127.", "::1", "localhost")


def guarded(call):
    def connect(self, address, *arguments):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(LOCAL):
            raise OSError(f"the tests run without a network, but something asked for {address}")
        return call(self, address, *arguments)

    return connect


def lookup(host, *arguments, _real=socket.getaddrinfo, **options):
    if host is not None and not str(host).startswith((*LOCAL, "0.0.0.0", "::")) and host != socket.gethostname():
        raise OSError(f"the tests run without a network, but something looked up {host}")
    return _real(host, *arguments, **options)


socket.socket.connect = guarded(socket.socket.connect)
socket.socket.connect_ex = guarded(socket.socket.connect_ex)
socket.getaddrinfo = lookup
