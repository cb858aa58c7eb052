"""Addresses that members of a project may have requests sent to: public ones, never those that only
this host can reach, except for networks that the operator allows.

Webhooks and judge models use it.
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from django.conf import settings

from feedback_app.web.errors import UserError

Address = IPv4Address | IPv6Address
#: IPv6 prefixes that embed an IPv4 address (RFC 6052, RFC 8215).
NAT64 = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))


@dataclass(frozen=True)
class Target:
    """A URL with its checked address, which is used without another lookup."""

    url: str
    host: str
    address: Address


def inner(address: Address) -> Address:
    """Return the IPv4 address embedded in an IPv6 one, or the address itself."""
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


def is_inside(address: Address, networks: Sequence[str]) -> bool:
    """Return whether the address is in one of the networks."""
    return any(address in network for network in map(ip_network, networks))


def is_public(address: Address) -> bool:
    """Return whether the address is one of the internet, and embeds no other."""
    real = inner(address)
    return (
        real.is_global
        and not (real.is_multicast or real.is_reserved or real.is_loopback)
        and not (isinstance(real, IPv6Address) and real.is_site_local)
    )


def target_of(
    url: str,
    *,
    named: str = "A webhook",
    networks: Sequence[str] | None = None,
    plain_inside: bool = False,
) -> Target:
    """Resolve the URL's host once and check every address of it.

    `networks` may be reached though they are not public; by default WEBHOOK_NETWORKS. In production
    only https is allowed; with `plain_inside` http as well, inside these networks. `named` begins
    the messages. Raise UserError for an invalid URL, an unknown host, or if any address is private,
    loopback, link-local, reserved or embeds such an address.
    """
    networks = settings.WEBHOOK_NETWORKS if networks is None else networks
    hint = f"{named} must point to a public address."
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise UserError("This is not a valid URL.") from error
    schemes = ("https",) if settings.PRODUCTION and not plain_inside else ("https", "http")
    if parts.scheme not in schemes or not host:
        raise UserError(f"{named}'s URL must start with {' or '.join(schemes)}:// and a host.")
    if parts.username or parts.password or parts.fragment:
        raise UserError(f"{named}'s URL must not contain a user, password or fragment.")
    try:
        found = socket.getaddrinfo(
            host, port or (443 if parts.scheme == "https" else 80), type=socket.SOCK_STREAM
        )
    except (OSError, UnicodeError) as error:
        raise UserError(f"{host} cannot be resolved.") from error
    try:
        addresses = [ip_address(entry[4][0]) for entry in found]
    except ValueError as error:  # link-local addresses have a scope
        raise UserError(hint) from error
    inside = [is_inside(address, networks) for address in addresses]
    if not addresses or not all(
        known or is_public(address) for known, address in zip(inside, addresses, strict=True)
    ):
        raise UserError(hint)
    if settings.PRODUCTION and parts.scheme == "http" and not all(inside):
        raise UserError(f"{named}'s URL must start with https:// outside the own network.")
    return Target(url=url, host=host, address=addresses[0])
