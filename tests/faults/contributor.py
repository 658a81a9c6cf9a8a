"""One host that contributes to a group and finishes it: the parts of a daemon that deliver, on a spool of its own.

Killed and started again, it goes on; what it is asked to contribute follows from its name alone.
"""

import asyncio
import sys
from pathlib import Path

import msgspec

from daemon.making import Deliveries, FakeClock, Spools, inline, part, version
from dropoff.ids import JobId
from dropoff.messages import JobState
from dropoff.saves import Group, Save
from dropoffd.spool.spool import Spool
from dropoffd.stores.directory.store import DirectoryStore


async def main(state: Path, store: str, host: int, hosts: int) -> None:
    """Accept a contribution and a finish, unless an earlier life did, and deliver both."""
    spool = await Spools(state).open()
    clock = FakeClock()
    deliveries = Deliveries(spool, state, DirectoryStore(store), clock, places=2)
    await _accept(spool, host, hosts)
    while True:
        totals = await spool.totals()
        if not totals[JobState.QUEUED].jobs and not totals[JobState.WAITING].jobs:
            break
        await deliveries.round()
        clock.advance(1000)
    await spool.aclose()


async def _accept(spool: Spool, host: int, hosts: int) -> None:
    added = part("draft")
    assert added.part is not None
    added = msgspec.structs.replace(added, job=JobId(f"{host + 1000:032x}"), name=b"%d" % host)
    if not await spool.known(added.job):
        await spool.accept(added, [inline(b"from %d" % host)], ())
    contribution = _grouped("draft", 1, Group(name="g", writer=f"{host}"), JobId(f"{host + 2000:032x}"))
    finish = _grouped("nothing", 0, Group(name="g", finish=True, writers=hosts), JobId(f"{host + 3000:032x}"))
    for save in (contribution, finish):
        if not await spool.known(save.job):
            await spool.accept(save, (), ())


def _grouped(draft: str, steps: int, group: Group, job: JobId) -> Save:
    made = version(draft, steps)
    assert made.version is not None
    return msgspec.structs.replace(made, job=job, version=msgspec.structs.replace(made.version, group=group))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
