"""The address of the client that sent a request, also behind proxies that the settings name."""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from starlette.types import Scope

_HEADER = b"x-forwarded-for"
_MAX_PROXIES = 20


class ClientAddresses:
    """Tells the address of a request's client.

    ``X-Forwarded-For`` counts only where the peer is a trusted proxy: others write into it what they like.
    ``Forwarded`` is not read, since a proxy that sets one of the two passes on what a client wrote into the other.

    Args:
        trusted: Networks of the trusted proxies.

    """

    def __init__(self, trusted: Iterable[IPv4Network | IPv6Network] = ()) -> None:
        self._trusted = tuple(trusted)

    def is_trusted(self, peer: str | None) -> bool:
        """Return whether the peer's headers about the client may be believed."""
        address = _parse(peer) if self._trusted and peer else None
        return address is not None and any(address in network for network in self._trusted)

    def of(self, scope: Scope) -> str | None:
        """Return the client's address, without its port, or ``None`` if the connection has none.

        Behind trusted proxies, it is the last address in ``X-Forwarded-For`` that is not one of theirs. What is not an
        address ends the search, at the proxy that passed it on.
        """
        peer: str | None = (scope.get("client") or (None,))[0]
        if not self.is_trusted(peer):
            return peer
        values = b",".join(value for name, value in scope["headers"] if name == _HEADER)
        for part in reversed(values.decode("latin-1").rsplit(",", _MAX_PROXIES)[-_MAX_PROXIES:]):
            address = _parse(_without_port(part.strip()))
            if address is None:
                break
            peer = str(address)
            if not self.is_trusted(peer):
                break
        return peer


@lru_cache(1024)
def _parse(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _without_port(text: str) -> str:
    """Return the address of ``192.0.2.1:80``, ``[2001:db8::1]:80`` or ``[2001:db8::1]``, as some proxies write it."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
