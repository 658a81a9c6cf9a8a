"""One signed request to an S3 store, and its answer or one of the closed set of errors.

Here ends what concerns a single request: whose clock is wrong, which region the bucket is in, whether the credentials
have just ended. Each is learnt from the store's answer and the request is sent once more; anything else is for the
wrapper that retries.
"""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import msgspec

from dropoffd.clock import Clock
from dropoffd.stores.base import Body, Progress
from dropoffd.stores.http import Answer, Http
from dropoffd.stores.s3 import answers
from dropoffd.stores.s3.address import Address
from dropoffd.stores.s3.answers import Problem
from dropoffd.stores.s3.credentials import Source
from dropoffd.stores.s3.sign import EMPTY_SHA256, Query, Signer, query_string

_AWS = ".amazonaws.com"
# Of these the reason is needed: it may be the clock, the credentials or the region.
_MUTE = (400, 401, 403)
_REGION = re.compile(r"[a-z0-9-]{2,40}")


class Client:
    """Talks to one bucket."""

    def __init__(self, address: Address, http: Http, credentials: Source, clock: Clock) -> None:
        self.address = address
        self._http = http
        self._credentials = credentials
        self._clock = clock
        self._signer = Signer(address.region)
        self.skew_seconds = 0.0
        """How far the store's clock is ahead of ours; learnt when it minds."""

    def now(self) -> float:
        """Return the time, in seconds since the epoch."""
        return self._clock.now()

    async def call(
        self,
        what: str,
        method: str,
        key: str | None,
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        body: Body | bytes = b"",
        payload_sha256: str = EMPTY_SHA256,
        progress: Progress | None = None,
        *,
        answer_seconds: float = 60.0,
        into: memoryview | None = None,
    ) -> Answer:
        """Send a request about `key`, or the bucket for None, and return the answer.

        `what` says in errors what was tried; `payload_sha256` is the body's digest in hex, or UNSIGNED. `into` takes
        the range that was asked for.
        """
        learnt: set[str] = set()
        while True:
            answer = await self._once(
                method, key, query, headers or {}, body, payload_sha256, progress, answer_seconds, into
            )
            found = answers.problem(method, answer)
            if found is None:
                return answer
            if method == "HEAD" and found.status in _MUTE:
                answer, found = await self._told(key, answer, found)
            lesson = self._learn(found, answer)
            if not lesson or lesson in learnt:
                raise answers.error(found, f"{what} in {self.address.bucket}", answer)
            learnt.add(lesson)

    async def _told(self, key: str | None, answer: Answer, found: Problem) -> tuple[Answer, Problem]:
        """Return why a HEAD was refused: its own answer has no body to say so in, one to a GET has."""
        other = await self._once("GET", key, (), {"range": "bytes=0-0"}, b"", EMPTY_SHA256, None, 60.0, None)
        why = answers.problem("GET", other)
        return (other, why) if why is not None else (answer, found)

    async def _once(
        self,
        method: str,
        key: str | None,
        query: Query,
        headers: Mapping[str, str],
        body: Body | bytes,
        payload_sha256: str,
        progress: Progress | None,
        answer_seconds: float,
        into: memoryview | None,
    ) -> Answer:
        address = self.address
        path = address.bucket_path if key is None else address.path(key)
        sent = {"host": address.authority, **headers}
        credentials = await self._credentials.get()
        if credentials is not None:
            now = self._clock.now() + self.skew_seconds
            sent = self._signer.sign(method, path, query, sent, payload_sha256, credentials, now)
        url = f"{address.scheme}://{address.authority}{path}" + (f"?{query_string(query)}" if query else "")
        return await self._http.request(method, url, sent, body, progress, answer_seconds=answer_seconds, into=into)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def _learn(self, found: Problem, answer: Answer) -> str:
        """Take to heart what makes the same request worth sending again; return what that was."""
        if found.code == answers.SKEWED and "date" in answer.headers:
            self.skew_seconds = parsedate_to_datetime(answer.headers["date"]).timestamp() - self._clock.now()
            return "time"
        if found.stale:
            self._credentials.refresh()
            return "credentials"
        region = self._region_in(answer)
        if region and region != self.address.region:
            self._move_to(region)
            return "region"
        return ""

    def _region_in(self, answer: Answer) -> str:
        if answer.status not in {301, 307, 400, 403}:
            return ""
        named = answer.headers.get("x-amz-bucket-region", "")
        if not named and b"<Region>" in answer.data:
            named = answers.text(answers.parsed(answer.data), "Region")
        return named if _REGION.fullmatch(named) else ""

    def _move_to(self, region: str) -> None:
        host = self.address.host
        if host.startswith("s3.") and host.endswith(_AWS):
            host = f"s3.{region}{_AWS}"
        self.address = msgspec.structs.replace(self.address, region=region, host=host)
        self._signer = Signer(region)
