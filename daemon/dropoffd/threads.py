"""Two kinds of threads: those that give way to everybody else, and those that a caller waits for.

Hashing and copying take all the processor time that they can get. With an ordinary priority they take it from
training, and from the event loop, on which a save waits: beside deliveries on two busy cores a save took 5 ms, and
3 ms once they gave way. A thread cannot take its niceness back (setpriority(2)). So the threads that do all kinds of
work become nice with the first heavy work that they do, and what a caller waits for has threads of its own.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import anyio

T = TypeVar("T")

# A tenth of the weight of whoever does not give way (sched(7)): enough to go on beside training that leaves nothing.
NICENESS = 10
_PROMPT_AT_ONCE = 8

_mine = threading.local()
_prompt = ThreadPoolExecutor(_PROMPT_AT_ONCE, thread_name_prefix="prompt")


def give_way() -> None:
    """Let this thread run when others leave it the time, from now on; the event loop's own never does."""
    if not getattr(_mine, "nice", False) and threading.current_thread() is not threading.main_thread():
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), max(NICENESS, os.nice(0)))
        _mine.nice = True


async def promptly(work: Callable[[], T]) -> T:
    """Run `work`, which blocks, in a thread that never gives way; return when it has ended, also if cancelled."""
    ending = asyncio.get_running_loop().run_in_executor(_prompt, work)
    with anyio.CancelScope(shield=True):
        await asyncio.wait({ending})
    return ending.result()
