"""Drop an artifact off and keep training.

    import dropoff

    run = dropoff.init(project="cv", name="resnet-50")
    run.save_file("best.pt")        # returns in well under a millisecond, whatever the size

The process may exit, crash or be killed the moment after: the daemon on this host has the content.
"""

from dropoff.artifact import Artifact
from dropoff.delivery import Delivery, wait
from dropoff.errors import (
    DeliveryError,
    DeliveryTimeoutError,
    DropoffError,
    MissingSourceError,
    ProtocolError,
    RefusedError,
    SettingsError,
    SpoolFullError,
    UnavailableError,
    UnstableSourceError,
    UsageError,
)
from dropoff.messages import Category, JobState, Keep, Receipt
from dropoff.run import Run, init
from dropoff.settings import Settings
from dropoff.version import VERSION

__version__ = VERSION

__all__ = [
    "Artifact",
    "Category",
    "Delivery",
    "DeliveryError",
    "DeliveryTimeoutError",
    "DropoffError",
    "JobState",
    "Keep",
    "MissingSourceError",
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
    "init",
    "wait",
]
