"""List a bucket: ListObjectsV2, page by page."""

from collections.abc import AsyncIterator

from dropoffd.stores.s3 import answers
from dropoffd.stores.s3.answers import Element
from dropoffd.stores.s3.client import Client


async def listed(
    client: Client, prefix: str, kind: str, name: str, *query: tuple[str, str]
) -> AsyncIterator[tuple[str, Element]]:
    """Yield the items of a kind below a prefix, each with its key, or beginning of keys, below the store's own."""
    root = f"{client.address.prefix}/" if client.address.prefix else ""
    asked = [("list-type", "2"), ("prefix", root + prefix), *query]
    token = ""
    while True:
        answer = await client.call(
            "list objects", "GET", None, [*asked, ("continuation-token", token)] if token else asked
        )
        page = answers.parsed(answer.data)
        for item in answers.children(page, kind):
            key = answers.raw_text(item, name)
            if key.startswith(root + prefix):
                yield key.removeprefix(root), item
        token = answers.text(page, "NextContinuationToken")
        if answers.text(page, "IsTruncated") != "true" or not token:
            return
