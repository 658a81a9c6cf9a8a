"""How much may be in custody."""

import threading
from pathlib import Path

import anyio
import pytest

from dropoff.errors import SpoolFullError
from dropoffd.spool.quota import Quota

pytestmark = pytest.mark.anyio


async def test_what_does_not_fit_is_refused_and_not_counted(tmp_path: Path) -> None:
    """Exactly the quota fits; one byte more raises SpoolFullError and changes nothing."""
    quota = Quota(str(tmp_path), quota_bytes=100, floor_bytes=0, used_bytes=0)
    quota.reserve(60)
    quota.reserve(40)
    with pytest.raises(SpoolFullError, match="100 of 100 bytes are in use") as caught:
        quota.reserve(1)
    assert "spool_quota_bytes" in caught.value.hint
    assert quota.used_bytes == 100
    quota.release(40)
    quota.reserve(1)
    assert quota.used_bytes == 61


async def test_the_floor_of_free_space_is_never_used(tmp_path: Path) -> None:
    """What would leave less than the floor free is refused although the quota allows it."""
    free = Quota(str(tmp_path), 0, 0, 0).free_bytes()
    quota = Quota(str(tmp_path), quota_bytes=1 << 60, floor_bytes=free // 2, used_bytes=0)
    quota.reserve(1)
    with pytest.raises(SpoolFullError, match="stay free") as caught:
        quota.reserve(free)
    assert "spool_floor_bytes" in caught.value.hint
    assert not quota.allows_copy(free)
    assert quota.allows_copy(1)
    assert quota.used_bytes == 1


async def test_who_waits_for_space_is_woken(tmp_path: Path) -> None:
    """Every waiter goes on when some bytes are released, and waits again for the next time."""
    quota = Quota(str(tmp_path), quota_bytes=10, floor_bytes=0, used_bytes=10)
    woken: list[int] = []

    async def wait(number: int) -> None:
        await quota.freed()
        woken.append(number)

    for _ in range(2):
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(wait, number)
            await anyio.wait_all_tasks_blocked()
            assert woken == []
            quota.release(1)
        assert sorted(woken) == [0, 1, 2]
        woken.clear()


async def test_threads_never_count_past_the_quota(tmp_path: Path) -> None:
    """Of many threads that reserve at once just as many succeed as fit."""
    quota = Quota(str(tmp_path), quota_bytes=1000, floor_bytes=0, used_bytes=0)
    refused: list[int] = []

    def reserve() -> None:
        for _ in range(200):
            try:
                quota.reserve(1)
            except SpoolFullError:
                refused.append(1)

    threads = [threading.Thread(target=reserve) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (quota.used_bytes, len(refused)) == (1000, 600)
