"""How fast bytes may go: for all stores together and for each, by timetables that can be changed at any time.

What was changed by command holds until it is taken back, also after a restart; before that the settings hold.
"""

import datetime as dt
from collections.abc import Awaitable, Callable

import anyio

from dropoffd.clock import Clock
from dropoffd.limits.pace import PIECE_BYTES, Pace
from dropoffd.limits.timetable import Timetable, parse_timetable

_META = "bandwidth"
ALL = ""
"""Names all stores together."""

Recall = Callable[[str], Awaitable[str | None]]
Remember = Callable[[str, str], Awaitable[None]]


class Bandwidth:
    """The paces of all stores, kept to their timetables; `recall` and `remember` keep what was changed."""

    def __init__(self, clock: Clock, setting: str, recall: Recall, remember: Remember) -> None:
        self._clock = clock
        self._setting = setting
        self._recall = recall
        self._remember = remember
        self._texts: dict[str, str] = {ALL: setting}
        self._tables: dict[str, Timetable] = {ALL: parse_timetable(setting)}
        self._all = Pace(clock, None, PIECE_BYTES)
        self._paces: dict[str, Pace] = {ALL: self._all}
        self._changed = anyio.Event()

    async def pace(self, store: str) -> Pace:
        """Return the pace of a store, within that of all."""
        if store not in self._paces:
            text = await self._recall(f"{_META} {store}")
            self._paces.setdefault(store, Pace(self._clock, None, PIECE_BYTES, within=self._all))
            if text:
                self._use(store, text)
        return self._paces[store]

    async def change(self, store: str, text: str) -> None:
        """Go by this timetable from now on, for one store or for `ALL`; an empty one takes back what was changed.

        Raises SettingsError for what is no timetable.
        """
        if text:
            parse_timetable(text)
        await self.pace(store)
        await self._remember(f"{_META} {store}", text)
        self._use(store, text)

    def told(self) -> dict[str, tuple[str, float | None]]:
        """Return the timetable and the bytes per second now, of all stores (`ALL`) and of each that has its own."""
        return {store: (text, self._paces[store].per_second) for store, text in self._texts.items()}

    async def run(self) -> None:
        """Keep to the timetables, until cancelled."""
        text = await self._recall(f"{_META} {ALL}")
        if text:
            self._use(ALL, text)
        while True:
            self._changed = anyio.Event()
            now = self._local()
            for store, table in self._tables.items():
                self._paces[store].set_rate(table.rate_at(now))
            changing = [table.holds_seconds(now) for table in self._tables.values() if not table.constant]
            with anyio.move_on_after(min(changing) if changing else None):
                await self._changed.wait()

    def _use(self, store: str, text: str) -> None:
        if not text and store != ALL:
            self._texts.pop(store, None)
            self._tables.pop(store, None)
            self._paces[store].set_rate(None)
        else:
            self._texts[store] = text or self._setting
            self._tables[store] = parse_timetable(self._texts[store])
            self._paces[store].set_rate(self._tables[store].rate_at(self._local()))
        self._changed.set()

    def _local(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._clock.now()).astimezone()
