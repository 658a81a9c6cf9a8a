"""Uploads in parts that were begun without anybody learning their id: the answer was lost, or the daemon died."""

from dropoffd.stores.base import Multipart, NoSuchUploadError


async def end_nameless(multipart: Multipart, key: str) -> None:
    """End what was begun of this very key and has no part yet.

    Somebody else may just have begun one of the same content; he would only begin anew.
    """
    async for found in multipart.uploads(key):
        if found.key == key and not await _has_parts(multipart, key, found.upload):
            await multipart.abandon(key, found.upload)


async def _has_parts(multipart: Multipart, key: str, upload: str) -> bool:
    try:
        return bool(await multipart.parts(key, upload))
    except NoSuchUploadError:
        return False
