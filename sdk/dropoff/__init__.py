"""Drop an artifact off and keep training.

    import dropoff

    run = dropoff.init(project="cv", name="resnet-50")
    run.save_file("best.pt")        # returns in well under a millisecond, whatever the size

The process may exit, crash or be killed the moment after: the daemon on this host has the content.
"""

from typing import TYPE_CHECKING, Any

from dropoff.artifact import Artifact
from dropoff.delivery import Delivery, wait
from dropoff.errors import (
    DamagedError,
    DeliveryError,
    DeliveryTimeoutError,
    DropoffError,
    MissingSourceError,
    NotStoredError,
    ProtocolError,
    RefusedError,
    SettingsError,
    SpoolFullError,
    UnavailableError,
    UnstableSourceError,
    UsageError,
)
from dropoff.messages import JobState, Receipt
from dropoff.run import Run, init
from dropoff.saves import Category, Keep
from dropoff.settings import Settings
from dropoff.version import VERSION

if TYPE_CHECKING:
    from dropoff import serializers
    from dropoff.finding import find_files, find_runs, find_versions, projects
    from dropoff.models import find_models, open_model
    from dropoff.reading import open_run, open_version

__version__ = VERSION

__all__ = [
    "Artifact",
    "Category",
    "DamagedError",
    "Delivery",
    "DeliveryError",
    "DeliveryTimeoutError",
    "DropoffError",
    "JobState",
    "Keep",
    "MissingSourceError",
    "NotStoredError",
    "ProtocolError",
    "Receipt",
    "RefusedError",
    "Run",
    "Settings",
    "SettingsError",
    "SpoolFullError",
    "UnavailableError",
    "UnstableSourceError",
    "UsageError",
    "__version__",
    "find_files",
    "find_models",
    "find_runs",
    "find_versions",
    "init",
    "open_model",
    "open_run",
    "open_version",
    "projects",
    "serializers",
    "wait",
]

_OF_READING = frozenset({"open_run", "open_version"})
_OF_FINDING = frozenset({"find_files", "find_runs", "find_versions", "projects"})
_OF_MODELS = frozenset({"find_models", "open_model"})


def __getattr__(name: str) -> Any:
    """Load what reads stores when it is first used (PEP 562): training that only saves need not."""
    if name in _OF_READING:
        from dropoff import reading  # noqa: PLC0415

        return getattr(reading, name)
    if name in _OF_FINDING:
        from dropoff import finding  # noqa: PLC0415

        return getattr(finding, name)
    if name in _OF_MODELS:
        from dropoff import models  # noqa: PLC0415

        return getattr(models, name)
    if name == "serializers":
        import dropoff.serializers  # noqa: PLC0415  # `from dropoff import` would ask here again

        return dropoff.serializers
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
