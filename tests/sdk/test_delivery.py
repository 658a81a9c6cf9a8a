"""The handle that a save returns."""

import asyncio
import time
from pathlib import Path

import pytest

import dropoff
from dropoff import DeliveryError, DeliveryTimeoutError, RefusedError
from support.daemon import DaemonProcess, MakeDaemon


def test_a_delivery_goes_from_queued_to_delivered(paused: DaemonProcess, source: Path) -> None:
    """State and progress tell where the job stands, and the receipt is proof."""
    delivery = paused.run().save_file(source)
    assert (delivery.state, delivery.progress) == ("queued", 0.0)
    with pytest.raises(DeliveryError, match="it is queued") as caught:
        delivery.result()
    assert "dropoff show" in caught.value.hint
    paused.command("resume")
    receipt = delivery.wait(30)
    assert (delivery.state, delivery.progress) == ("delivered", 1.0)
    assert delivery.result() == receipt
    assert (receipt.job, receipt.size_bytes, receipt.files) == (delivery.id, 7, 1)
    assert (paused.store / receipt.key).read_bytes() == b"content"
    assert (paused.store / receipt.record).is_file()
    assert repr(delivery) == f"<Delivery {delivery.id} delivered>"


def test_waiting_is_bounded(paused: DaemonProcess, source: Path) -> None:
    """`wait` raises DeliveryTimeoutError after its time, and the job goes on."""
    delivery = paused.run().save_file(source)
    for timeout in (0, 0.3):
        began = time.monotonic()
        with pytest.raises(DeliveryTimeoutError, match="they stay in custody"):
            delivery.wait(timeout)
        assert timeout <= time.monotonic() - began < timeout + 5
    with pytest.raises(TimeoutError):
        delivery.wait(0)
    assert delivery.state == "queued"


def test_a_cancelled_delivery_says_so(paused: DaemonProcess, source: Path) -> None:
    """After `cancel` waiting and result raise DeliveryError, once and again, and a second cancel is refused."""
    delivery = paused.run().save_file(source)
    delivery.cancel()
    assert delivery.state == "cancelled"
    with pytest.raises(DeliveryError, match="it is cancelled"):
        delivery.wait(5)
    with pytest.raises(DeliveryError, match="it is cancelled"):
        delivery.result()
    with pytest.raises(RefusedError, match="has ended"):
        delivery.cancel()


def test_what_is_delivered_cannot_be_cancelled(shared: DaemonProcess, source: Path) -> None:
    """Cancelling after delivery raises RefusedError, and the receipt stays."""
    delivery = shared.run().save_file(source)
    receipt = delivery.wait(30)
    with pytest.raises(RefusedError, match="has ended"):
        delivery.cancel()
    assert delivery.result() == receipt


def test_a_held_delivery_raises_with_the_reason(shared: DaemonProcess, source: Path, tmp_path: Path) -> None:
    """Waiting for a job that needs a person ends at once, with the reason and what to do."""
    (tmp_path / "obstacle").write_bytes(b"")
    delivery = shared.run(store=str(tmp_path / "obstacle" / "store")).save_file(source)
    with pytest.raises(DeliveryError, match="it is held") as caught:
        delivery.wait(30)
    assert caught.value.hint
    delivery.cancel()


def test_awaiting_gives_the_receipt(shared: DaemonProcess, source: Path) -> None:
    """`await delivery` returns what `wait` does, several at once, and raises what it does."""
    run = shared.run()
    deliveries = [run.save_file(source, name=str(n)) for n in range(3)]

    async def gather() -> list[dropoff.Receipt]:
        return list(await asyncio.gather(*deliveries))

    assert asyncio.run(gather()) == dropoff.wait(*deliveries, timeout=30)

    async def one(delivery: dropoff.Delivery) -> dropoff.Receipt:
        return await delivery

    shared.command("pause")
    cancelled = run.save_file(source)
    cancelled.cancel()
    with pytest.raises(DeliveryError, match="it is cancelled"):
        asyncio.run(one(cancelled))
    shared.command("resume")


def test_waiting_for_many_keeps_their_order(shared: DaemonProcess, source: Path) -> None:
    """`dropoff.wait` returns receipts in the order asked for, doubles included, and none for none."""
    run = shared.run()
    deliveries = [run.save_file(source, name=str(n)) for n in range(20)]
    wanted = [*deliveries[::-1], deliveries[0]]
    assert [receipt.job for receipt in dropoff.wait(*wanted, timeout=30)] == [one.id for one in wanted]
    assert dropoff.wait() == []


def test_waiting_for_many_counts_the_late(paused: DaemonProcess, source: Path) -> None:
    """The error of a wait that was too short tells how many are late."""
    run = paused.run()
    deliveries = [run.save_file(source) for _ in range(3)]
    with pytest.raises(DeliveryTimeoutError, match="3 deliveries"):
        dropoff.wait(*deliveries, timeout=0.1)


def test_a_delivery_outlives_a_daemon(make_daemon: MakeDaemon, source: Path) -> None:
    """While no daemon answers the last known state is told, and a wait goes on with the next daemon."""
    daemon = make_daemon().start()
    daemon.command("pause")
    delivery = daemon.run().save_file(source)
    assert delivery.state == "queued"
    daemon.kill()
    assert (delivery.state, delivery.progress) == ("queued", 0.0)
    with pytest.raises(DeliveryTimeoutError):
        delivery.wait(0.3)
    daemon.start()
    daemon.command("resume")
    assert delivery.wait(30).job == delivery.id
    daemon.kill()
    assert (delivery.state, delivery.result().job) == ("delivered", delivery.id)


def test_a_deposit_that_cannot_be_taken_in_yet_is_waited_for(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """Waiting for a save that is in the inbox because the spool is full times out; it does not call the job lost."""
    daemon = make_daemon(spool_quota_bytes=1000).start()
    daemon.command("pause")
    path = tmp_path / "file"
    path.write_bytes(bytes(900))
    first = daemon.run().save_file(path)
    second = daemon.run(offline=True).save_file(path)
    with pytest.raises(DeliveryTimeoutError):
        second.wait(0.5)
    daemon.command("resume")
    first.wait(30)
    assert second.wait(30).size_bytes == 900
