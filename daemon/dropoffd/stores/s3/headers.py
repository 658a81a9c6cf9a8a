"""What is said of an object beside its bytes."""

import mimetypes

from dropoffd.stores.base import Create, Mode, Replace
from dropoffd.stores.s3.probe import Capabilities

SHA256 = "x-amz-meta-sha256"


def metadata(key: str, sha256: str) -> dict[str, str]:
    """Return the headers that are kept with an object."""
    return {SHA256: sha256, "content-type": mimetypes.guess_type(key)[0] or "application/octet-stream"}


def condition(mode: Mode, can: Capabilities) -> dict[str, str]:
    """Return the headers that make a request depend on what is there, as far as the store honours them."""
    if isinstance(mode, Create) and can.creates:
        return {"if-none-match": "*"}
    if isinstance(mode, Replace):
        return {"if-match": f'"{mode.etag}"' if can.quotes_etags else mode.etag}
    return {}
