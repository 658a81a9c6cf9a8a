"""Libraries are known by what is imported, and used only where that is safe."""

import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest

from dropoff import UsageError
from dropoff.serializers.libraries import exactly, is_a, kind_of, library


def test_an_object_is_known_without_importing_its_library() -> None:
    """What an object is comes from modules that are loaded; one that is not has no objects, and stays unloaded."""
    assert exactly(np.ones(1), "numpy", "ndarray")
    assert not exactly(np.ma.masked_array([1]), "numpy", "ndarray")
    assert is_a(np.ma.masked_array([1]), "numpy", "ndarray")
    assert not exactly(np.ones(1), "numpy", "ones")
    things: tuple[object, ...] = (1, OrderedDict(), np.float32(1))
    assert [kind_of(one) for one in things] == ["int", "collections.OrderedDict", "numpy.float32"]
    script = (
        "import sys; from dropoff.serializers.libraries import exactly; "
        "print(exactly(1, 'wave', 'Wave_read'), 'wave' in sys.modules)"
    )
    made = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert made.stdout.split() == ["False", "False"]


def test_a_library_that_is_missing_or_unsafe_is_named_with_the_fix() -> None:
    """A library that is not there, or too old to read with what strangers wrote, is refused with what to install."""
    assert library("numpy", (1, 0)) is np
    with pytest.raises(UsageError, match="unable to use nothing_of_that_name") as raised:
        library("nothing_of_that_name.below")
    assert raised.value.hint == "install nothing_of_that_name here"
    with pytest.raises(UsageError, match="it can be made to run what it reads") as raised:
        library("numpy.lib", (999, 1))
    assert raised.value.hint == "install numpy 999.1 or newer"
