"""The network goes away, in each of its ways, and comes back: deliveries notice, wait, and go on where they stood.

The scenarios mostly wait, so a few run at once (`at_once.py`). `pytest -s` shows how long each took to go on.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults import at_once
from faults.at_once import Running, scenario
from faults.away import PART_BYTES, PARTS, WAIT_SECONDS, Site, named, networked, url
from support.fault_server.behaviour import Behaviour
from support.fault_server.calls import Operation
from support.fault_server.faults import Delay, Reset, Stage
from support.fault_server.server import FaultServer
from support.network import Network
from support.servers.fixtures import missing
from support.servers.process import UnavailableError

pytestmark = [pytest.mark.timeout(300), pytest.mark.quiet]

ALL = bool(os.environ.get("DROPOFF_TEST_ALL"))
AT_ONCE = 6
# What is promised: silence counts as loss after 10 s, and what is back is found within 5 s.
NOTICED_SECONDS, BACK_SECONDS = 15.0, 5.0


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Run the scenarios that were chosen, if this machine has namespaces."""
    try:
        Network().close()
    except UnavailableError as error:
        missing("a network of its own", str(error))
    with at_once.running(request, tmp_path_factory.mktemp("network"), AT_ONCE) as found:
        yield found


def _in_time(home: Path, seconds: float) -> None:
    print(f"{home.name}: went on {seconds:.1f} s after the return")
    assert seconds < BACK_SECONDS


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def _lose(
    home: Path, lose: Callable[[Network, Site], None], mend: Callable[[Network, Site], None], *, tries: int = 1
) -> None:
    """Lose the network in mid-upload until the daemon found it away so many times, and mend it."""
    with networked(home) as (network, site):
        site.start()
        saved = site.begun()
        lose(network, site)
        lost = time.monotonic()
        site.until_left_alone()
        assert time.monotonic() - lost < NOTICED_SECONDS
        site.until_left_alone(tries)
        mend(network, site)
        _in_time(home, site.goes_on(time.monotonic()))
        network.set_speed(None)
        site.check_large_arrival(saved)


@scenario
def test_a_silent_loss_costs_what_was_in_flight(home: Path) -> None:
    """Packets vanish for longer than silence is borne: status says so, and the upload goes on where it stood."""
    with networked(home) as (network, site):
        site.start()
        saved = site.begun()
        network.cut()
        lost = time.monotonic()
        site.until_left_alone()
        (left_alone,) = site.left_alone()
        assert time.monotonic() - lost < NOTICED_SECONDS
        assert left_alone["store"] == site.daemon.settings.store
        assert "for 10 s" in left_alone["reason"]
        assert not left_alone["needs_person"]
        _sleep_until(lost + 15)
        network.mend()
        _in_time(home, site.goes_on(time.monotonic()))
        # The store works again as soon as it took a part, not only when it has them all.
        site.until_logged("store works again")
        assert site.left_alone() == []
        assert saved.state == "uploading"
        network.set_speed(None)
        site.check_large_arrival(saved)


@scenario
def test_a_short_loss_is_borne(home: Path) -> None:
    """Packets vanish for three seconds: the same requests go on, and nothing is sent again."""
    with networked(home) as (network, site):
        site.start()
        saved = site.begun()
        network.cut()
        time.sleep(3)
        network.mend()
        mended, arrived = time.monotonic(), site.arrived_bytes
        site.server.journal.wait(lambda: site.arrived_bytes > arrived)
        _in_time(home, time.monotonic() - mended)
        site.check_arrival(saved)
        assert site.arrived_bytes == PARTS * PART_BYTES
        assert not site.is_left_alone()


@scenario
def test_a_loss_while_the_answer_is_awaited(home: Path) -> None:
    """The answer is lost: that nobody is there is noticed although nothing is sent, and the delivery tried again."""
    with networked(home) as (network, site):
        network.set_speed(None)
        site.start()
        site.check_arrival(site.save(1000, "small"))
        site.server.inject(Operation.PUT, Delay(seconds=2))
        size = PART_BYTES
        saved = site.save(size, "medium")
        journal = site.server.journal
        journal.wait(lambda: any(one.received_bytes == size for one in journal.requests(Operation.PUT)))
        network.cut()
        lost = time.monotonic()
        site.until_left_alone()
        assert time.monotonic() - lost < NOTICED_SECONDS
        # The server tries again at its own pace: the next time 12 s later.
        _sleep_until(lost + 15.5)
        network.mend()
        mended = time.monotonic()
        site.check_arrival(saved)
        _in_time(home, time.monotonic() - mended)


@scenario
def test_a_loss_behind_a_slow_pace(home: Path) -> None:
    """A daemon that may send but little notices a loss as soon as any other, though it has room to send more."""
    with networked(home, bandwidth="20KB/s") as (network, site):
        site.start()
        saved = site.save(2 * PART_BYTES + 1, "large")
        site.server.journal.wait(lambda: site.arrived_bytes > 0)
        network.cut()
        lost = time.monotonic()
        site.until_left_alone()
        assert time.monotonic() - lost < NOTICED_SECONDS
        site.daemon.command("limit", "unlimited")
        network.mend()
        _in_time(home, site.goes_on(time.monotonic()))
        site.check_arrival(saved)


@scenario
def test_a_cable_is_pulled(home: Path) -> None:
    """The carrier is lost."""
    _lose(home, lambda network, _: network.unplug(), lambda network, _: network.plug())


@scenario
def test_the_interface_is_switched_off(home: Path) -> None:
    """The interface goes down, and its routes with it."""
    _lose(home, lambda network, _: network.take_link_down(), lambda network, _: network.bring_link_up(), tries=3)


@scenario
def test_the_server_loses_its_address(home: Path) -> None:
    """Nobody has the address, and the router comes to say so."""
    _lose(home, lambda network, _: network.take_address(), lambda network, _: network.give_address(), tries=2)


@scenario
def test_connections_are_reset_and_refused(home: Path) -> None:
    """A router answers every packet with an RST."""
    _lose(home, lambda network, _: network.reset(), lambda network, _: network.mend(), tries=3)


@scenario
def test_the_server_is_gone_for_a_while(home: Path) -> None:
    """The server dies in mid-upload, its port is closed, and it comes back."""

    def start_again(network: Network, site: Site) -> None:
        with network.server.inside():
            site.server.start()

    _lose(home, lambda _, site: site.server.stop(), start_again, tries=3)


@scenario
def test_a_connection_is_reset_in_the_middle(home: Path) -> None:
    """An RST ends one part, which is sent again, while the others go on."""
    with networked(home) as (network, site):
        network.set_speed(None)
        site.start()
        site.server.inject(Operation.PART, Reset(Stage.BODY, PART_BYTES // 2), part=3)
        site.check_arrival(site.save(PARTS * PART_BYTES, "large"))
        assert site.arrived_bytes == PARTS * PART_BYTES + PART_BYTES // 2
        assert not site.is_left_alone()


@scenario
def test_a_daemon_starts_without_a_network(home: Path) -> None:
    """It gets ready, takes saves, says that the store is away, and delivers when it is back."""
    with networked(home) as (network, site):
        network.cut()
        site.start()
        began = time.monotonic()
        saved = site.save(1000, "small")
        site.until_left_alone(2)
        assert time.monotonic() - began < NOTICED_SECONDS
        assert len(site.left_alone()) == 1
        network.mend()
        mended = time.monotonic()
        site.check_arrival(saved)
        _in_time(home, time.monotonic() - mended)


@scenario
def test_a_daemon_is_killed_without_a_network(home: Path) -> None:
    """The one that comes after it goes on at the part where the upload stood."""
    with networked(home) as (network, site):
        site.start()
        saved = site.begun()
        network.cut()
        before = len(site.daemon.log)
        site.daemon.kill()
        site.start()
        site.until_left_alone(2, after=before)
        network.mend()
        _in_time(home, site.goes_on(time.monotonic()))
        network.set_speed(None)
        site.check_large_arrival(saved)


@scenario
def test_outages_are_not_held_against_a_job(home: Path) -> None:
    """A large upload that meets one outage after another, small ones arriving in between, uses up no try."""
    with networked(home) as (network, site):
        site.start()
        saved = site.begun()
        for turn in range(2):
            logged = len(site.daemon.log)
            network.cut()
            site.until_left_alone(after=logged)
            network.mend()
            mended = time.monotonic()
            site.check_arrival(site.save(1000, f"small {turn}"))
            site.goes_on(mended)
        network.set_speed(None)
        site.check_large_arrival(saved, outages=2)


@scenario
def test_a_store_away_slows_neither_saves_nor_other_stores(home: Path) -> None:
    """While one store is away the daemon answers each save, and another store gets all that is meant for it."""
    with networked(home, answer_deadline_seconds=0.5) as (network, site):
        (home / "other").mkdir()
        with network.client.inside(), FaultServer(home / "other", Behaviour(signatures=False)) as other:
            site.start()
            saved = site.begun()
            here = site.daemon.run(name="here")
            elsewhere = site.daemon.run(name="elsewhere", store=url(other, other.address.endpoint))
            network.cut()
            elsewhere.save_file(home / "large")
            small, took = home / "small", []
            while not site.is_left_alone():
                for run in (here, elsewhere):
                    small.write_bytes(os.urandom(1000))
                    began = time.monotonic()
                    run.save_file(small)
                    took.append(time.monotonic() - began)
                assert elsewhere.flush(BACK_SECONDS).pending == 0
            print(f"{home.name}: {len(took)} saves, the slowest took {max(took) * 1000:.0f} ms")
            assert os.listdir(site.daemon.settings.inbox_dir) == []
            assert here.flush(0).pending == len(took) // 2
            network.mend()
            network.set_speed(None)
            site.check_large_arrival(saved)
            assert here.flush(WAIT_SECONDS).pending == 0


@scenario
def test_a_name_exists_only_later(home: Path) -> None:
    """The name server says that there is no such store, until it knows better."""
    with named(home) as (_, site, names):
        site.start()
        saved = site.save(1000, "small")
        site.until_left_alone(3)
        names.knows = True
        known = time.monotonic()
        site.check_arrival(saved)
        _in_time(home, time.monotonic() - known)


@scenario
def test_the_name_server_is_silent_too(home: Path) -> None:
    """The name server is lost with the network: a question to it that got no answer puts nothing off afterwards."""
    with named(home) as (network, site, names):
        names.knows = True
        site.start()
        saved = site.begun()
        network.cut()
        site.until_left_alone()
        # It is asked a second after, by glibc's own patience once more 5 s later, and not again for as long.
        time.sleep(6.7)
        network.mend()
        _in_time(home, site.goes_on(time.monotonic()))
        network.set_speed(None)
        site.check_large_arrival(saved)


@scenario
def test_a_long_loss(home: Path) -> None:
    """Two minutes without a network cost no more than fifteen seconds do."""
    if not ALL:
        pytest.skip("takes two minutes: DROPOFF_TEST_ALL is not set")
    with networked(home) as (network, site):
        site.start()
        saved = site.begun()
        network.cut()
        time.sleep(120)
        network.mend()
        _in_time(home, site.goes_on(time.monotonic()))
        network.set_speed(None)
        site.check_large_arrival(saved)
