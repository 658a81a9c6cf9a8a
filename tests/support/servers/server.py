"""What the servers have in common: an address, buckets on demand, an end."""

import secrets
from typing import Protocol

import msgspec

from support.servers.address import Address
from support.servers.client import client


class Server(Protocol):
    """A running server."""

    address: Address

    def stop(self) -> None:
        """End it and leave nothing behind."""


def keys() -> tuple[str, str]:
    """Return an access key and a secret one, good for nothing but a server made for them."""
    return f"TEST{secrets.token_hex(8).upper()}", secrets.token_hex(20)


def new_bucket(address: Address) -> Address:
    """Make a bucket on a server and return its address."""
    name = f"bucket-{secrets.token_hex(6)}"
    client(address).create_bucket(Bucket=name)
    return msgspec.structs.replace(address, bucket=name)
