"""Objects to files and back, a module per family of objects.

Safe by default: what reads a file never runs anything of it, and a pickle is neither written nor read unless
`allow_pickle=True` is said on both ends. No library is imported that the user has not imported, until an object of
it is written or read.
"""

from dropoff.serializers.choosing import register
from dropoff.serializers.serializer import Serializer

__all__ = ["Serializer", "register"]
