"""Who is next: a pure function of what waits, what runs, and how often one was chosen before.

After Postfix's queue manager: the set of running deliveries is bounded; runs take turns, so that one run's
million files do not hold up another's single one; within a run, higher priority first, new before tried,
small before large, then in order of arrival. So that none of this starves anybody, every few turns the oldest job of
all is next, whatever else is true of it, and large jobs never take the last place from small ones.
"""

import zlib
from collections import Counter
from collections.abc import Collection, Sequence

from dropoffd.custody import Candidate

# Of so many turns, in one the oldest job goes first.
OLDEST_EVERY = 8
# Of so many turns, one prefers what was tried before.
TRIED_EVERY = 4
LARGE_BYTES = 64 << 20


def choose(waiting: Collection[Candidate], running: Sequence[Candidate], places: int, turn: int) -> list[Candidate]:
    """Return who starts now, in order: at most `places` minus those `running`.

    `turn` counts all that were ever chosen; with it the choice has no memory of its own.
    """
    pool = {candidate.seq: candidate for candidate in waiting}
    for candidate in running:
        pool.pop(candidate.seq, None)
    active = list(running)
    chosen: list[Candidate] = []
    while pool and len(active) < places:
        able = _able(pool.values(), active, places)
        if not able:
            break
        pick = _next(able, active, turn + len(chosen))
        chosen.append(pick)
        active.append(pick)
        del pool[pick.seq]
    return chosen


def _able(pool: Collection[Candidate], active: Sequence[Candidate], places: int) -> list[Candidate]:
    """Leave out the large ones when only the last place is free and all the others are taken by large ones."""
    large = sum(candidate.size_bytes > LARGE_BYTES for candidate in active)
    if places > 1 and large >= places - 1:
        return [candidate for candidate in pool if candidate.size_bytes <= LARGE_BYTES]
    return list(pool)


def _next(able: Sequence[Candidate], active: Sequence[Candidate], turn: int) -> Candidate:
    if _comes_up(turn, OLDEST_EVERY):
        return min(able, key=lambda candidate: candidate.seq)
    busy = Counter(candidate.run for candidate in active)
    runs = sorted({candidate.run for candidate in able})
    tried_first = _comes_up(turn, TRIED_EVERY)
    best = max(candidate.priority for candidate in able)
    return min(
        (candidate for candidate in able if candidate.priority == best),
        key=lambda c: (
            busy[c.run],
            (runs.index(c.run) - turn) % len(runs),
            c.tried is not tried_first,
            c.size_bytes > LARGE_BYTES,
            c.seq,
        ),
    )


def _comes_up(turn: int, every: int) -> bool:
    """Tell whether a rule's turn has come: one in `every`, in no rhythm that arrivals could fall in step with."""
    return zlib.crc32(turn.to_bytes(8, "big")) % every == 0
