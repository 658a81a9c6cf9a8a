"""Where a store that speaks S3 is, and who may use it."""

import msgspec


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """All that a client has to know; buckets are in the path, never in the host's name."""

    endpoint: str
    region: str
    bucket: str
    access_key: str
    secret_key: str
    session_token: str = ""
