"""A daemon and a store that goes wrong in every way that stores do: what was saved arrives, true and once.

Each fault happens to a delivery that would succeed without it, and the fault server asserts that it did. At the end
of each test the bucket holds what was saved and nothing else, and no upload is left open.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dropoff import JobState
from dropoff.errors import DeliveryError
from faults.site import LARGE, MIDDLE, SMALL, WAIT_SECONDS, Site
from support import stores
from support.fault_server import faults
from support.fault_server.behaviour import Behaviour
from support.fault_server.calls import Operation
from support.fault_server.faults import (
    Close,
    Delay,
    Fault,
    FlipBit,
    Garbage,
    KeepShort,
    MalformedXml,
    Reset,
    Silence,
    Slow,
    Stage,
    WrongChecksum,
    WrongEtag,
)
from support.fault_server.server import BUCKET, FaultServer

AWS = Behaviour()
# Neither verifies a byte; what arrived is proven by the etag, or by reading it back.
ETAGS = Behaviour(verifies=frozenset(), put_conditions=False, complete_conditions=False)
NOTHING = Behaviour(verifies=frozenset(), put_conditions=False, complete_conditions=False, etags_are_md5=False)

# What every kind of request may meet, and what is the same for all of them.
STUMBLES: dict[str, Fault] = {
    "reset": Reset(Stage.RECEIVED),
    "internal error": faults.INTERNAL_ERROR,
    "an error inside 200": faults.ERROR_INSIDE_200,
    "slow down": faults.slow_down(),
    "conflict": faults.CONFLICT,
    "token expired": faults.expired_token(),
    "lost answer": faults.LOST_ANSWER,
}
OTHERS: dict[str, Fault] = {
    "reset before the body": Reset(Stage.BODY),
    "closed": Close(),
    "garbage": Garbage(),
    "slow down for a second": faults.slow_down("1"),
    "too many requests": faults.TOO_MANY_REQUESTS,
    "token expired, as 403": faults.expired_token(403),
}
TRANSFERS: dict[str, Fault] = STUMBLES | {
    "slow": Slow(16 << 20),
    "reset in mid-body": Reset(Stage.BODY, 5000),
    "another etag": WrongEtag(),
    "no etag": WrongEtag(""),
    "another checksum": WrongChecksum(),
    "a flipped bit": FlipBit(5000),
    "kept short": KeepShort(5000),
}
XML: dict[str, Fault] = {
    "malformed": MalformedXml(),
    "cut off": Close(Stage.ANSWER, 60),
}
# Nothing is there to be answered, nor to be in conflict with.
LOOKS = {name: fault for name, fault in (STUMBLES | OTHERS).items() if name not in {"conflict", "lost answer"}}
COMPLETIONS: dict[str, Fault] = (
    STUMBLES
    | XML
    | {
        "no etag": WrongEtag(""),
        "another checksum": WrongChecksum(),
        "no such upload": faults.NO_SUCH_UPLOAD,
        "in progress": faults.IN_PROGRESS,
    }
)


class Sites:
    """Keeps a site of each kind for the next test, as long as tests leave it well."""

    def __init__(self, root: Callable[[str], Path]) -> None:
        self._root = root
        self._all: list[Site] = []
        self._well: dict[Behaviour, Site] = {}

    def lend(self, behaviour: Behaviour) -> Iterator[Site]:
        """Yield a site whose daemon runs and has found out what the store can do."""
        site = self._well.pop(behaviour, None) or self._new(behaviour)
        site.server.journal.clear()
        yield site
        site.server.behaviour = behaviour
        site.server.script.assert_hit()
        site.check()
        site.forget()
        self._well[behaviour] = site

    def _new(self, behaviour: Behaviour) -> Site:
        server = FaultServer(self._root("server"), behaviour).start()
        self._all.append(Site(self._root("site"), server))
        return self._all[-1].start()

    def end(self) -> None:
        """End all of them."""
        for site in self._all:
            site.end()
            site.server.close()


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    """Return the sites of these tests."""
    found = Sites(tmp_path_factory.mktemp)
    yield found
    found.end()


@pytest.fixture
def site(sites: Sites) -> Iterator[Site]:
    """Return a site whose store does what AWS does."""
    yield from sites.lend(AWS)


@pytest.fixture(params=[ETAGS, NOTHING], ids=["etags", "nothing"])
def careless(sites: Sites, request: pytest.FixtureRequest) -> Iterator[Site]:
    """Return a site whose store verifies nothing."""
    yield from sites.lend(request.param)


@pytest.mark.parametrize("fault", (TRANSFERS | OTHERS).values(), ids=TRANSFERS | OTHERS)
def test_a_put_that_goes_wrong_is_put_right(site: Site, fault: Fault) -> None:
    """An object that goes in one request is delivered although its first request met a fault."""
    for size in (SMALL, MIDDLE):
        site.server.inject(Operation.PUT, fault)
        site.delivered(size)


@pytest.mark.parametrize("fault", TRANSFERS.values(), ids=TRANSFERS)
def test_a_part_that_goes_wrong_costs_no_other(site: Site, fault: Fault) -> None:
    """An object in parts is delivered although one met a fault, and the others are sent once.

    Unless the store said a wrong etag, and so cannot put its parts together.
    """
    site.server.inject(Operation.PART, fault, part=2)
    site.delivered(LARGE)
    if not isinstance(fault, WrongEtag):
        assert len(site.server.journal.requests(Operation.PART, part=1)) == 1
        assert site.asked(Operation.CREATE) == 1


@pytest.mark.parametrize("fault", (STUMBLES | XML).values(), ids=STUMBLES | XML)
def test_an_upload_whose_beginning_goes_wrong_is_begun_once(site: Site, fault: Fault) -> None:
    """An upload that was begun although nobody learnt its id is not left behind."""
    site.server.inject(Operation.CREATE, fault)
    site.delivered(LARGE)
    assert site.asked(Operation.PART) == 3


@pytest.mark.parametrize("fault", COMPLETIONS.values(), ids=COMPLETIONS)
def test_an_upload_whose_end_goes_wrong_is_finished(site: Site, fault: Fault) -> None:
    """The object is put together once, and its parts are not sent again for anything but a lost upload."""
    site.server.inject(Operation.COMPLETE, fault)
    site.delivered(LARGE)
    again = fault in {COMPLETIONS["no such upload"], COMPLETIONS["another checksum"]}
    assert site.asked(Operation.PART) == (6 if again else 3)


@pytest.mark.parametrize("fault", LOOKS.values(), ids=LOOKS)
def test_a_look_that_goes_wrong_is_taken_again(site: Site, fault: Fault) -> None:
    """An answer to HEAD has no body to give a reason, and is understood all the same."""
    site.server.inject(Operation.HEAD, fault)
    site.delivered(MIDDLE)


@pytest.mark.parametrize("fault", [faults.LOST_ANSWER, faults.CONFLICT, Reset(Stage.BODY, 100), WrongChecksum()])
def test_a_record_that_goes_wrong_is_there_once(site: Site, fault: Fault) -> None:
    """The record of a save, which is created and never replaced, is there once whatever its request met."""
    site.server.inject(Operation.PUT, Delay(seconds=0))  # the content's
    site.server.inject(Operation.PUT, fault)
    site.delivered(SMALL)


@pytest.mark.parametrize("fault", [FlipBit(5000), KeepShort(5000)], ids=["a flipped bit", "kept short"])
def test_what_a_careless_store_keeps_wrong_is_put_right(careless: Site, fault: Fault) -> None:
    """Damage that a store takes in without a word is noticed, and what was damaged is sent again."""
    for size in (SMALL, MIDDLE):
        careless.server.inject(Operation.PUT, fault)
        careless.delivered(size)
    careless.server.inject(Operation.PART, fault, part=2)
    careless.delivered(LARGE)


@pytest.mark.parametrize(
    ("operation", "size", "tries"),
    [
        (Operation.PUT, SMALL, 3),
        (Operation.PUT, MIDDLE, 3),
        (Operation.PART, LARGE, 9),
        (Operation.COMPLETE, LARGE, 3),
    ],
)
def test_a_store_with_wrong_checksums_never_has_delivered(
    site: Site, operation: Operation, size: int, tries: int
) -> None:
    """A job is held whose store says again and again that it has something else, until a person lets it go on."""
    site.server.inject(operation, WrongChecksum(), part=2 if operation is Operation.PART else None, times=tries)
    held(site, size, "CRC-64/NVME")


@pytest.mark.parametrize("fault", [FlipBit(5000), KeepShort(5000)], ids=["a flipped bit", "kept short"])
def test_a_careless_store_with_wrong_bytes_never_has_delivered(careless: Site, fault: Fault) -> None:
    """A store that keeps something else again and again holds the job, and has nothing under its key."""
    careless.server.inject(Operation.PUT, fault, times=3)
    held(careless, MIDDLE, "unable to put")
    careless.server.inject(Operation.PUT, fault, times=3)
    held(careless, SMALL, "unable to put")


def held(site: Site, size: int, reason: str) -> None:
    """Save a file whose job is held, with no object left, and then let it go."""
    before = site.server.objects.keys()
    delivery = site.save(size)
    with pytest.raises(DeliveryError, match=reason):
        delivery.wait(WAIT_SECONDS)
    assert delivery.state is JobState.HELD
    assert site.server.objects.keys() == before
    site.daemon.command("retry", delivery.id)
    delivery.wait(WAIT_SECONDS)


def paused(site: Site) -> dict[str, object]:
    """Return what is told of the one store that is left alone, as soon as there is one."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not (found := site.status()["stores"]):
        assert time.monotonic() < deadline
    (told,) = found
    return dict(told)


def test_a_store_that_denies_is_left_alone_and_tried_again(site: Site, tmp_path: Path) -> None:
    """Its deliveries stop with the reason and the fix, another store's do not, and they go on by themselves."""
    site.server.inject(Operation.PUT, faults.ACCESS_DENIED)
    delivery = site.save(SMALL)
    told = paused(site)
    assert (told["needs_person"], "AccessDenied" in str(told["reason"])) == (True, True)
    assert "allow s3:PutObject" in str(told["hint"])
    elsewhere = site.save(SMALL, store=f"file://{tmp_path}")
    elsewhere.wait(1)
    del site.saved[elsewhere.id]
    assert delivery.state is JobState.QUEUED
    delivery.wait(WAIT_SECONDS)
    assert site.status()["stores"] == []


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_bucket_that_is_gone_is_waited_for(site: Site, size: int) -> None:
    """Without its bucket a store is left alone, with the fix, and `retry` tries at once when the bucket is back."""
    buckets = site.server._service.buckets
    bucket = buckets.pop(BUCKET)
    delivery = site.save(size)
    told = paused(site)
    assert ("NoSuchBucket" in str(told["reason"]), "create the bucket" in str(told["hint"])) == (True, True)
    buckets[BUCKET] = bucket
    site.daemon.command("retry")
    delivery.wait(WAIT_SECONDS)


def test_a_store_that_asks_for_a_long_pause_gets_it(site: Site) -> None:
    """A Retry-After of half a minute is not waited for in mid-delivery: the store is left alone for so long."""
    site.server.inject(Operation.PUT, faults.slow_down("30"))
    delivery = site.save(SMALL)
    told = paused(site)
    assert (told["needs_person"], float(str(told["retry_at"])) - time.time() > 20) == (False, True)
    site.daemon.command("retry")
    delivery.wait(WAIT_SECONDS)


def test_a_token_that_stays_expired_needs_a_person(site: Site) -> None:
    """Credentials that are still no good when asked for anew stop the store, and the fix says to renew them."""
    site.server.inject(None, faults.expired_token(), times=4)  # HEAD, why, and both again with what the chain gave
    delivery = site.save(SMALL)
    assert "renew the credentials" in str(paused(site)["hint"])
    site.daemon.command("retry")
    delivery.wait(WAIT_SECONDS)


def test_a_clock_that_is_wrong_is_corrected(site: Site) -> None:
    """Where the store's clock is an hour off requests are signed by its time, also the first after a start."""
    assert site.daemon.stop() == 0
    site.server.behaviour = Behaviour(clock_ahead_seconds=3600)
    site.daemon.start()
    site.delivered(SMALL)
    refused = [seen for seen in site.server.journal.requests() if seen.status == 403]
    assert 1 <= len(refused) <= 2
    site.server.behaviour = Behaviour(clock_ahead_seconds=-3600)
    site.delivered(LARGE)


def test_an_upload_that_the_bucket_ended_is_begun_anew(site: Site) -> None:
    """An upload that is gone in the midst of its parts, as by a lifecycle rule, is begun anew and finished."""
    site.server.inject(Operation.PART, Delay(Stage.BODY, seconds=1), part=3)
    delivery = site.save(LARGE)
    done = site.server.journal
    done.wait(lambda: sum(seen.status == 200 for seen in done.requests(Operation.PART)) == 2)
    site.server._service.buckets[BUCKET].uploads.clear()
    delivery.wait(WAIT_SECONDS)
    assert site.asked(Operation.CREATE) == 2


@pytest.mark.parametrize("as_rgw", [False, True], ids=["as aws", "as rgw"])
def test_an_upload_that_is_gone_when_it_is_finished_is_begun_anew(site: Site, as_rgw: bool) -> None:
    """An upload that the store does not know when it is to be finished is begun anew, whatever it says to that."""
    site.server.behaviour = Behaviour(unknown_upload_is_500=as_rgw)
    site.server.inject(Operation.COMPLETE, Delay(Stage.BODY, seconds=1))
    delivery = site.save(LARGE)
    site.server.journal.wait(lambda: site.asked(Operation.COMPLETE) == 1)
    site.server._service.buckets[BUCKET].uploads.clear()
    delivery.wait(WAIT_SECONDS)
    assert (site.asked(Operation.CREATE), site.asked(Operation.PART)) == (2, 6)


def test_an_upload_that_was_ended_while_the_daemon_was_away_is_begun_anew(site: Site) -> None:
    """A daemon that comes back to an upload that the store does not know any more begins anew."""
    interrupted(site)
    site.server._service.buckets[BUCKET].uploads.clear()
    site.daemon.start()
    site.daemon.run().flush(WAIT_SECONDS)
    assert (site.asked(Operation.CREATE), site.asked(Operation.PART)) == (2, 6)


@pytest.mark.parametrize("fault", [*XML.values(), faults.INTERNAL_ERROR, Reset()])
def test_an_upload_goes_on_although_its_parts_are_hard_to_learn(site: Site, fault: Fault) -> None:
    """A daemon that comes back sends the parts that the store does not have, although their list met a fault."""
    interrupted(site)
    site.server.inject(Operation.PARTS, fault)
    site.daemon.start()
    site.daemon.run().flush(WAIT_SECONDS)
    assert (site.asked(Operation.CREATE), site.asked(Operation.PART)) == (1, 4)


def interrupted(site: Site) -> None:
    """Kill the daemon when two of three parts are stored, and the last never will be."""
    site.server.inject(Operation.PART, Silence(Stage.BODY, 1000), part=3)
    site.save(LARGE)
    done = site.server.journal
    done.wait(lambda: sorted(seen.status for seen in done.requests(Operation.PART)) == [0, 200, 200])
    site.status()  # by then the answers are rows
    site.daemon.kill()


def test_credentials_are_asked_for_again_when_they_end(tmp_path: Path) -> None:
    """Where a store says that a token expired, or that it does not know a key, the chain is asked for others."""
    with FaultServer(tmp_path) as server:
        given = tmp_path / "credentials.json"
        config = tmp_path / "config"
        config.write_text(f"[profile lab]\ncredential_process = cat {given}\n")
        site = Site(tmp_path / "site", server, store=f"{stores.url(server.address, 'team')}&credentials=lab")
        site.daemon.environment |= {"AWS_CONFIG_FILE": str(config)}

        def give(token: str) -> str:
            keys = server.add_keys(token)
            found = {"AccessKeyId": keys.access_key, "SecretAccessKey": keys.secret_key, "SessionToken": token}
            given.write_text(json.dumps({"Version": 1} | found))
            return keys.access_key

        try:
            give("first token")
            site.start()
            second = give("second token")
            server.inject(Operation.PUT, faults.expired_token())
            site.delivered(SMALL)
            assert second in server.journal.requests(Operation.PUT)[-1].call.headers["authorization"]
            third = give("third token")
            server.revoke(server._service.keys[second])
            site.delivered(SMALL)
            assert third in server.journal.requests(Operation.PUT)[-1].call.headers["authorization"]
            site.check()
        finally:
            site.end()
