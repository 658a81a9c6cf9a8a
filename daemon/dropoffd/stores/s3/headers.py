"""What is said of an object beside its bytes."""

import mimetypes

SHA256 = "x-amz-meta-sha256"


def metadata(key: str, sha256: str) -> dict[str, str]:
    """Return the headers that are kept with an object."""
    return {SHA256: sha256, "content-type": mimetypes.guess_type(key)[0] or "application/octet-stream"}
