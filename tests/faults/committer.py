"""One host that commits versions: the parts of a daemon that deliver, on a spool of its own, until all is delivered.

Killed and started again, it goes on; what it is asked to commit follows from its name alone.
"""

import asyncio
import sys
from pathlib import Path

import msgspec

from daemon.making import Deliveries, FakeClock, Spools, inline, part, version
from dropoff.ids import JobId
from dropoff.messages import JobState
from dropoffd.stores.directory.store import DirectoryStore

ARTIFACT = "cats"


async def main(state: Path, store: str, host: int, count: int) -> None:
    """Accept `count` versions, unless an earlier life did, and deliver them."""
    spool = await Spools(state).open()
    clock = FakeClock()
    deliveries = Deliveries(spool, state, DirectoryStore(store), clock, places=2)
    for number in range(count):
        draft = f"{host}-{number}"
        job = JobId(f"{host:016x}{number:016x}")
        if await spool.known(job):
            continue
        added = msgspec.structs.replace(part(draft), job=JobId(f"{host + 1000:016x}{number:016x}"))
        await spool.accept(added, [inline(draft.encode())], ())
        await spool.accept(msgspec.structs.replace(version(draft), job=job), (), ())
    while True:
        totals = await spool.totals()
        if not totals[JobState.QUEUED].jobs and not totals[JobState.WAITING].jobs:
            break
        await deliveries.round()
        clock.advance(1000)
    await spool.aclose()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
