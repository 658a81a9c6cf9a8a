"""Connections break, as far as a proxy on loopback can break them: for machines on which nobody is root."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults import at_once
from faults.at_once import Running, scenario
from faults.away import proxied
from support.proxy import Proxy

pytestmark = pytest.mark.quiet

BACK_SECONDS = 5.0


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Run the scenarios that were chosen."""
    with at_once.running(request, tmp_path_factory.mktemp("connections"), 3) as found:
        yield found


def _break(home: Path, how: Callable[[Proxy], None]) -> None:
    with proxied(home) as (proxy, site):
        site.start()
        saved = site.begun()
        how(proxy)
        site.until_left_alone()
        proxy.mend()
        seconds = site.goes_on(time.monotonic())
        print(f"{home.name}: went on {seconds:.1f} s after the return")
        assert seconds < BACK_SECONDS
        site.check_large_arrival(saved)


@scenario
def test_nothing_is_read_any_more(home: Path) -> None:
    """Connections stay open and take nothing: noticed, and gone on with once they do."""
    _break(home, Proxy.cut)


@scenario
def test_connections_are_reset(home: Path) -> None:
    """All connections are reset, and each that comes, for a while."""
    _break(home, Proxy.reset)


@scenario
def test_connections_are_refused(home: Path) -> None:
    """All connections are reset, and nobody listens for a while."""
    _break(home, Proxy.refuse)
