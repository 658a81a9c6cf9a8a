"""Threads that give way, and threads that somebody waits for."""

import os
import threading

import anyio
import anyio.to_thread
import pytest

from dropoffd.threads import NICENESS, give_way, promptly


def niceness() -> int:
    """Return that of this thread."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.anyio
async def test_a_thread_that_did_heavy_work_gives_way_and_the_event_loop_never_does() -> None:
    """Heavy work makes its own thread nice, and neither the event loop's nor those that callers wait for."""
    before = niceness()

    def heavy() -> int:
        give_way()
        return niceness()

    assert await anyio.to_thread.run_sync(heavy) == max(before, NICENESS)
    give_way()
    assert niceness() == before
    assert await promptly(niceness) == before


@pytest.mark.anyio
async def test_what_a_caller_waits_for_is_finished_also_when_it_is_cancelled() -> None:
    """Cancelled in the middle, the work comes to its end before the cancellation goes on."""
    began, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        go_on.wait()
        ended.set()

    async with anyio.create_task_group() as group:
        group.start_soon(promptly, work)
        await anyio.to_thread.run_sync(began.wait)
        group.cancel_scope.cancel()
        go_on.set()
    assert ended.is_set()
