"""Where a webhook may point: to the public internet, never to what only this host can reach."""

import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from django.conf import settings

from feedback_app.web.errors import UserError

Address = IPv4Address | IPv6Address
#: IPv6 addresses that are an IPv4 address in other clothes (RFC 6052, RFC 8215).
NAT64 = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))
RESOLVE_HINT = "A webhook must point to a public address."


@dataclass(frozen=True)
class Target:
    """A URL with the one address that it was checked at: what connects uses this, and asks no
    name server again."""

    url: str
    host: str
    address: Address


def inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, or the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if any(address in network for network in NAT64) or int(address) < 2**32:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def allowed(address: Address) -> bool:
    """Public, or in a network that the operator has opened to webhooks."""
    for network in map(ip_network, settings.WEBHOOK_NETWORKS):
        if address in network:
            return True
    real = inner(address)
    return (
        real.is_global
        and not (real.is_multicast or real.is_reserved or real.is_loopback)
        and not (isinstance(real, IPv6Address) and real.is_site_local)
    )


def target_of(url: str) -> Target:
    """Resolves the URL's host once and checks every address that it has.

    Raises UserError: for a URL that is none, a name that nobody knows, or if any of the addresses
    is private, loopback, link-local, reserved or in disguise.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise UserError("This is no URL.") from error
    schemes = ("https",) if settings.PRODUCTION else ("https", "http")
    if parts.scheme not in schemes or not host:
        raise UserError(f"A webhook's URL begins with {' or '.join(schemes)}:// and a host.")
    if parts.username or parts.password or parts.fragment:
        raise UserError("A webhook's URL holds no user, password or fragment.")
    try:
        found = socket.getaddrinfo(
            host, port or (443 if parts.scheme == "https" else 80), type=socket.SOCK_STREAM
        )
    except (OSError, UnicodeError) as error:
        raise UserError(f"{host} can not be found.") from error
    try:
        addresses = [ip_address(entry[4][0]) for entry in found]
    except ValueError as error:  # with a scope, as link-local addresses have it
        raise UserError(RESOLVE_HINT) from error
    if not addresses or not all(map(allowed, addresses)):
        raise UserError(RESOLVE_HINT)
    return Target(url=url, host=host, address=addresses[0])
