"""Bring links, which tell the lineage; each may name what was not copied with it, and stays true."""

from dropoff.records import LinkRecord, decode_link
from dropoffd.catalogue import keys
from dropoffd.catalogue.reading import SMALL_MAX_BYTES, read, read_bytes
from dropoffd.copying.objects import DAMAGE, ConflictError, has_same, make, misplaced
from dropoffd.copying.tally import Tally
from dropoffd.stores.base import NotFoundError, Store


class Links:
    """Brings links from `source` to `target`."""

    def __init__(self, source: Store, target: Store, tally: Tally) -> None:
        self._source = source
        self._target = target
        self._tally = tally

    async def read(self, key: str) -> tuple[LinkRecord, bytes]:
        """Return a link and its bytes; raises CorruptError unless it belongs where it is."""
        data = await read_bytes(self._source, key, SMALL_MAX_BYTES)
        link = read(data, decode_link, key)
        if key not in keys.link_keys(link):
            raise misplaced(key)
        return link, data

    async def bring(self, key: str) -> None:
        """Bring the link under a key."""
        try:
            if await has_same(self._source, self._target, key):
                self._tally.present += 1
                return
            _, data = await self.read(key)
            await make(self._target, key, data)
        except NotFoundError:  # removed since the listing
            return
        except ConflictError as error:
            self._tally.conflict(key, error.message)
        except DAMAGE as error:
            self._tally.damage(key, error.message)
        else:
            self._tally.links += 1
