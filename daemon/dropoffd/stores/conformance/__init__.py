"""What a store has to be: checks that run on every provider and every wrapper.

Each check is a coroutine that takes a store, works below a prefix of its own, and raises AssertionError where the
store is not what `dropoffd.stores.base` says. `dropoff doctor` runs them on a user's own bucket, the tests on every
server and every wrapper that we have.
"""

from dropoffd.stores.conformance import bodies, conditions, listing, objects, parts
from dropoffd.stores.conformance.tools import Check, body

CHECKS = (*objects.check, *conditions.check, *listing.check, *bodies.check)
CHECKS_OF_PARTS = tuple(parts.check)

__all__ = ["CHECKS", "CHECKS_OF_PARTS", "Check", "body"]
