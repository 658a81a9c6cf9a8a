"""Who is next: never too many, the same each time, and nobody left behind."""

import itertools
import random
from collections import Counter
from collections.abc import Callable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from dropoffd.custody import Candidate
from dropoffd.schedule.order import LARGE_BYTES, OLDEST_EVERY, choose

SMALL, LARGE = 1, LARGE_BYTES + 1


def candidate(seq: int, run: int = 1, priority: int = 0, size: int = SMALL, *, tried: bool = False) -> Candidate:
    """Return a candidate."""
    return Candidate(seq=seq, run=run, priority=priority, size_bytes=size, tried=tried)


candidates = st.lists(
    st.builds(
        candidate,
        st.integers(1, 60),
        st.integers(1, 4),
        st.integers(-2, 2),
        st.sampled_from((SMALL, LARGE_BYTES, LARGE)),
        tried=st.booleans(),
    ),
    max_size=40,
    unique_by=lambda one: one.seq,
)


def large(some: Sequence[Candidate]) -> int:
    """Count the large ones."""
    return sum(one.size_bytes > LARGE_BYTES for one in some)


@given(candidates, candidates, st.integers(1, 6), st.integers(0, 10**6))
def test_places_are_never_exceeded_nor_left_free(
    waiting: list[Candidate], others: list[Candidate], places: int, turn: int
) -> None:
    """As many start as there are places and jobs, none twice, none that runs; only large ones may leave a place."""
    running = others[:places]
    chosen = choose(waiting, running, places, turn)
    seqs = [one.seq for one in chosen]
    able = {one.seq for one in waiting} - {one.seq for one in running}
    assert set(seqs) <= able
    assert len(set(seqs)) == len(seqs) <= places - len(running)
    left = [one for one in waiting if one.seq in able - set(seqs)]
    if len(chosen) + len(running) < places:
        assert large(left) == len(left)
        assert not left or large([*chosen, *running]) >= places - 1 > 0


@given(candidates, candidates, st.integers(1, 6), st.integers(0, 10**6), st.randoms())
def test_the_choice_depends_on_nothing_else(
    waiting: list[Candidate], running: list[Candidate], places: int, turn: int, chance: random.Random
) -> None:
    """The same jobs in another order, asked again, give the same answer."""
    first = choose(waiting, running, places, turn)
    chance.shuffle(waiting)
    chance.shuffle(running)
    assert choose(waiting, running, places, turn) == first


@given(candidates, st.integers(2, 6), st.integers(0, 10**6))
def test_large_ones_never_take_every_place(waiting: list[Candidate], places: int, turn: int) -> None:
    """Of several places one is always left to jobs that are not large."""
    assert large(choose(waiting, [], places, turn)) <= places - 1


def test_a_single_place_is_for_large_ones_too() -> None:
    """With one place a large job is delivered like any other."""
    assert choose([candidate(1, size=LARGE)], [], 1, 0) == [candidate(1, size=LARGE)]


def first(waiting: Sequence[Candidate], turn: int) -> int:
    """Return who is chosen for a single place."""
    (one,) = choose(waiting, [], 1, turn)
    return one.seq


def test_higher_priority_goes_first() -> None:
    """But for the turns of the oldest, priority comes before run, size, age and tries."""
    urgent = candidate(99, run=3, priority=1, size=LARGE, tried=True)
    waiting = [*(candidate(seq, run=seq % 2) for seq in range(20)), urgent]
    chosen = Counter(first(waiting, turn) for turn in range(100 * OLDEST_EVERY))
    assert set(chosen) == {0, 99}
    assert 50 < chosen[0] < 200


def test_new_goes_before_tried_and_small_before_large() -> None:
    """Within a run what was tried, and what is large, lets the others pass, but not on every turn."""
    tried, big, small = candidate(1, tried=True), candidate(2, size=LARGE), candidate(3)
    chosen = Counter(first([tried, big, small], turn) for turn in range(400))
    assert set(chosen) == {1, 3}
    assert chosen[3] > chosen[1] > 50
    assert Counter(first([big, small], turn) for turn in range(400)).most_common(1)[0][0] == 3


def test_runs_take_turns() -> None:
    """A run with a hundred jobs and one with two share the places alike."""
    waiting = [*(candidate(seq, run=1) for seq in range(100)), candidate(100, run=2), candidate(101, run=2)]
    assert sorted(one.run for one in choose(waiting, [], 4, 0)) == [1, 1, 2, 2]
    turns = [choose(waiting, [], 1, turn)[0].run for turn in range(6)]
    assert turns.count(1) == turns.count(2) == 3


def test_a_run_that_has_places_lets_another_have_the_next() -> None:
    """The place that comes free goes to the run with the fewest deliveries."""
    running = [candidate(1, run=1), candidate(2, run=1), candidate(3, run=2)]
    waiting = [candidate(4, run=1), candidate(5, run=2), candidate(6, run=3)]
    assert [one.run for one in choose(waiting, running, 6, 0)] == [3, 2, 1]


Arrivals = Callable[[int], list[Candidate]]


def turns_until_chosen(victim: Candidate, arrivals: Arrivals, most: int) -> int:
    """Return after how many turns `victim` is chosen for a single place, while others keep arriving."""
    waiting = [victim]
    for turn in range(most):
        waiting += arrivals(turn)
        (one,) = choose(waiting, [], 1, turn)
        if one == victim:
            return turn
        waiting.remove(one)
    return most


@settings(deadline=None)
@given(
    st.builds(candidate, st.just(1), st.integers(1, 3), st.integers(-9, 9), st.sampled_from((SMALL, LARGE))),
    st.lists(
        st.lists(
            st.tuples(st.integers(1, 3), st.integers(-9, 9), st.sampled_from((SMALL, LARGE)), st.booleans()),
            max_size=4,
        ),
        min_size=1,
        max_size=16,
    ),
    st.integers(0, 12),
)
def test_nobody_starves_on_one_place(
    victim: Candidate, stream: list[list[tuple[int, int, int, bool]]], ahead: int
) -> None:
    """Whatever keeps arriving, a job with `ahead` older ones is chosen within a few turns for each of them."""
    number = 1000
    victim = candidate(500, victim.run, victim.priority, victim.size_bytes)

    def arrivals(turn: int) -> list[Candidate]:
        nonlocal number
        if turn == 0:
            return [candidate(n, run=n % 3) for n in range(ahead)]
        made = []
        for run, priority, size, tried in stream[turn % len(stream)]:
            number += 1
            made.append(candidate(number, run, priority, size, tried=tried))
        return made

    most = 2 * OLDEST_EVERY * (ahead + 1)
    assert turns_until_chosen(victim, arrivals, most) < most


def test_an_old_large_job_does_not_starve_behind_others() -> None:
    """The oldest job, a large one, starts in the end although a large one runs whenever the oldest is to be next.

    Two places, four runs, equal priorities. Again and again a large job of another run takes one place, seven small
    ones take the other one after another, and both places come free.
    """
    victim = candidate(1, run=3, size=LARGE)
    waiting = [victim]
    numbers = itertools.count(2)
    turn = 0
    for _ in range(50):
        waiting += [candidate(next(numbers), run=run) for run in (1, 1, 1, 1, 4, 4, 4, 4)]
        waiting += [candidate(next(numbers), run=2, size=LARGE)]
        running: list[Candidate] = []
        for _ in range(7):
            chosen = choose(waiting, running, 2, turn)
            if victim in chosen:
                return
            turn += len(chosen)
            waiting = [one for one in waiting if one not in chosen]
            running = [one for one in (*running, *chosen) if one.size_bytes > LARGE_BYTES]
    raise AssertionError(f"not chosen in {turn} turns")


def test_every_job_of_a_long_queue_is_chosen_once() -> None:
    """A queue with all kinds of jobs is emptied, each job chosen exactly once, large ones among them."""
    chance = random.Random(3)
    waiting = [
        candidate(seq, chance.randrange(5), chance.randrange(3), chance.choice((SMALL, LARGE)), tried=seq % 3 == 0)
        for seq in range(500)
    ]
    everything = set(waiting)
    done: list[Candidate] = []
    running: list[Candidate] = []
    turn = 0
    while waiting or running:
        chosen = choose(waiting, running, 4, turn)
        turn += len(chosen)
        running += chosen
        waiting = [one for one in waiting if one not in chosen]
        assert len(running) <= 4
        done.append(running.pop(chance.randrange(len(running))))
    assert len(done) == len(everything)
    assert set(done) == everything
