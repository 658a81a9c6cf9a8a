"""Scenarios that mostly wait: a few run at once, from the first test on, and each test waits for its own."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

Scenario = Callable[[Path], None]
Running = Mapping[str, "Future[None]"]

_scenarios: dict[str, Scenario] = {}


def scenario(work: Scenario) -> Callable[[Running], None]:
    """Make a test of a function that gets a directory of its own; its module has a fixture `running`."""
    _scenarios[f"{work.__module__}.{work.__name__}"] = work

    def test(running: Running) -> None:
        running[work.__name__].result()

    # Not functools.wraps: pytest would see through it and look for a fixture `home`.
    test.__name__, test.__qualname__, test.__doc__ = work.__name__, work.__qualname__, work.__doc__
    return test


@contextmanager
def running(request: pytest.FixtureRequest, home: Path, at_once: int) -> Iterator[Running]:
    """Run those scenarios of the fixture's module that were chosen."""
    with ThreadPoolExecutor(at_once) as pool:
        futures = {}
        for item in request.session.items:
            work = _scenarios.get(f"{request.module.__name__}.{item.name}")
            if work is not None and item.parent is not None and item.parent.nodeid == request.node.nodeid:
                place = home / item.name
                place.mkdir()
                futures[item.name] = pool.submit(work, place)
        try:
            yield futures
        finally:
            pool.shutdown(cancel_futures=True)
