"""A guard for tests: this process speaks to itself and to this machine, to no other."""

from __future__ import annotations

import ipaddress
import socket
import sys

OURS = frozenset({"", "localhost", "localhost.localdomain", socket.gethostname(), None})


class LeftLoopback(RuntimeError):
    """A test tried to reach another machine."""


def stay_on_loopback() -> None:
    """Raise `LeftLoopback` from now on where this process looks up or connects to another machine."""
    sys.addaudithook(_audit)


def _audit(event: str, args: tuple[object, ...]) -> None:
    if event == "socket.getaddrinfo":
        host = args[0]
    elif event in {"socket.connect", "socket.sendto"} and isinstance(args[1], tuple):
        host = args[1][0]
    else:
        return
    if not _here(host):
        message = f"{event} to {host!r}: tests stay on loopback"
        raise LeftLoopback(message)


def _here(host: object) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name in OURS:
        return True
    try:
        address = ipaddress.ip_address(str(name).partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
