"""Which addresses may be looked at for somebody who only named a URL.

A URL can name what only this host can reach: the metadata of its cloud, which hands out credentials, or whatever
listens on its own network. So an address has to be one of the public internet's.
"""

import errno
import ipaddress

# RFC 6052: an IPv4 address in its last 32 bits.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def check_public(address: str) -> None:
    """Raise PermissionError unless an address is public."""
    if not is_public(address):
        raise PermissionError(errno.EACCES, f"{address} is not public, and allow_private_references is not set")


def is_public(address: str) -> bool:
    """Tell whether an address, as a socket names it, is one of the public internet's."""
    found = _reached(ipaddress.ip_address(address.partition("%")[0]))
    return found.is_global and not found.is_multicast


def _reached(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the address that is reached in the end: some of IPv6 stand for one of IPv4."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
