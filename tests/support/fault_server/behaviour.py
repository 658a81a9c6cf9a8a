"""Which store the server plays: AWS by default, and those that verify less or answer otherwise."""

import enum

import msgspec


class Verified(enum.StrEnum):
    """A statement about a body's bytes that a store may hold against them, or ignore without a word."""

    CRC64NVME = "crc64nvme"
    CRC32C = "crc32c"
    CRC32 = "crc32"
    SHA256 = "sha256"  # the header x-amz-checksum-sha256
    PAYLOAD = "payload"  # the header x-amz-content-sha256, which is signed
    MD5 = "md5"  # the header Content-MD5


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """What the server does where real stores differ."""

    verifies: frozenset[Verified] = frozenset(Verified)
    signatures: bool = True
    put_conditions: bool = True
    complete_conditions: bool = True
    etags_are_md5: bool = True  # not so where the store encrypts with keys of its own
    unknown_upload_is_500: bool = False  # what Ceph's gateway answers to Complete
    part_min_bytes: int = 5 << 20
    page_items: int = 1000
    clock_ahead_seconds: float = 0.0
