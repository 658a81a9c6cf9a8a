"""The S3 provider on every server, bare and as the daemon wraps it, held against the conformance suite."""

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack

import msgspec
import pytest

from dropoffd.clock import SystemClock
from dropoffd.limits.concurrency import Concurrency
from dropoffd.limits.gate import Gate
from dropoffd.limits.pace import PIECE_BYTES, Pace
from dropoffd.stores.base import RefusedError, Store, UnavailableError
from dropoffd.stores.conformance import CHECKS, CHECKS_OF_PARTS, Check
from dropoffd.stores.limited import LimitedStore
from dropoffd.stores.retry import RetryingStore
from support.fault_server.behaviour import Behaviour, Verified
from support.fault_server.server import FaultServer
from support.servers.fixtures import STARTERS, StartServer
from support.servers.server import new_bucket
from support.stores import s3_store

pytestmark = pytest.mark.anyio


class Lack(msgspec.Struct, frozen=True):
    """What a server does not do: why, and what comes of it."""

    reason: str
    raises: type[Exception]


# The server is to blame, not the provider; a line here that is not true any more fails.
LACKS = {
    ("rclone", "deleting_a_prefix_of_a_key_removes_nothing"): Lack(
        "a prefix is a directory there, and deleting one that is not empty is answered with 500", UnavailableError
    ),
    ("rclone", "a_part_can_be_replaced"): Lack(
        "parts are written on as they come; one that differs from the first of its number is refused", RefusedError
    ),
    ("moto", "unfinished_uploads_are_listed"): Lack("each is said to have begun in November 2010", AssertionError),
    ("moto", "an_upload_that_was_given_up_is_unknown"): Lack(
        "a part of an upload that it does not know is answered with 500", UnavailableError
    ),
}

# Beside those that others wrote, the fault server: as AWS, with short pages; as one whose checksums are those of the
# parts' checksums; and as one that does the least.
PLAYED = {
    "aws": Behaviour(page_items=2),
    "composite": Behaviour(verifies=frozenset({Verified.CRC32C, Verified.PAYLOAD})),
    "careless": Behaviour(
        verifies=frozenset(),
        signatures=False,
        put_conditions=False,
        complete_conditions=False,
        etags_are_md5=False,
        unknown_upload_is_500=True,
    ),
}


def wrapped(store: Store) -> Store:
    """Return a store as the daemon uses it: held back and patient."""
    clock = SystemClock()
    gate = Gate(clock, Concurrency(1, 16, 4))
    return RetryingStore(LimitedStore(store, gate, Pace(clock, 10_000, 1), Pace(clock, 1 << 30, PIECE_BYTES)), clock)


# The second's prefix has what is special in URLs and XML.
SHAPES: dict[str, tuple[str, Callable[[Store], Store]]] = {
    "bare": ("", lambda store: store),
    "wrapped": ("team a&b/models+1", wrapped),
    "unshielded": ("", lambda store: store),
}
# The wrappers are the same for all; what is sent over a plain network differs by what the store verifies.
STORES = [
    *((server, "bare") for server in (*STARTERS, *PLAYED)),
    *((server, "wrapped") for server in ("rgw", "aws")),
    *((server, "unshielded") for server in PLAYED),
]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Keep one loop for all checks, and with it each store's connections."""
    return "asyncio"


@pytest.fixture(scope="module", params=STORES, ids="-".join)
def named(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Return the names of a server and a shape, each pair in turn."""
    found: tuple[str, str] = request.param
    return found


@pytest.fixture(scope="module")
async def store(
    named: tuple[str, str], start_server: StartServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Store]:
    """Return the store in a bucket of its own there."""
    server, shape = named
    prefix, shaped = SHAPES[shape]
    with ExitStack() as stack:
        if server in STARTERS:
            address = new_bucket(start_server(server).address)
        else:
            played = FaultServer(tmp_path_factory.mktemp(server), PLAYED[server])
            address = stack.enter_context(played).address
        if shape == "unshielded":  # an address that leads here, too, and does not look like it
            address = msgspec.structs.replace(address, endpoint=address.endpoint.replace("127.0.0.1", "0.0.0.0"))
        async with s3_store(address, prefix) as bare:
            yield shaped(bare)


@pytest.mark.parametrize("check", CHECKS + CHECKS_OF_PARTS, ids=lambda check: check.__name__)
async def test_conforms(request: pytest.FixtureRequest, named: tuple[str, str], store: Store, check: Check) -> None:
    """The store is what the interface says in this respect, or its server is known to lack that."""
    lack = LACKS.get((named[0], check.__name__))
    if lack is not None:
        request.applymarker(pytest.mark.xfail(reason=lack.reason, raises=lack.raises, strict=True))
    await check(store)
