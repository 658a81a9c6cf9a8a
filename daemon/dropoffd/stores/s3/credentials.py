"""Who we are to an S3 store: found by AWS's own library, refreshed in time, never written down.

The chain of the AWS Common Runtime looks where every AWS tool does: environment, profile (keys, SSO, process, roles),
web identity, container, instance. It is asked in a thread of its own and caches; what it hands out is asked for again
shortly before it ends.
"""

import asyncio
import time
from typing import Protocol

from dropoffd.stores.base import DeniedError
from dropoffd.stores.s3.address import ANONYMOUS
from dropoffd.stores.s3.sign import Credentials

# A request that was signed just now must still be welcome when it arrives.
_BEFORE_END_SECONDS = 60.0
# Keys without an end may be changed by their owner, in the environment's files.
_AGAIN_SECONDS = 300.0


class Source(Protocol):
    """Where credentials come from."""

    async def get(self) -> Credentials | None:
        """Return what to sign with now, or None to send requests unsigned; raises DeniedError."""

    def refresh(self) -> None:
        """Forget what was handed out: the store said that it is no good."""


class Anonymous:
    """Nobody: for public buckets."""

    async def get(self) -> None:
        """Return nothing to sign with."""

    def refresh(self) -> None:
        """Nothing is remembered."""


class Chain:
    """AWS's chain of providers, or one profile of it."""

    def __init__(self, profile: str) -> None:
        self._profile = profile
        self._current: Credentials | None = None
        self._until = 0.0
        self._lock = asyncio.Lock()

    async def get(self) -> Credentials:
        """Return what is valid now."""
        async with self._lock:
            if self._current is None or time.time() > self._until:
                self._current = found = await self._ask()
                self._until = (
                    found.expires_at - _BEFORE_END_SECONDS if found.expires_at else time.time() + _AGAIN_SECONDS
                )
            return self._current

    def refresh(self) -> None:
        """Ask the chain anew next time."""
        self._current = None

    async def _ask(self) -> Credentials:
        from awscrt import auth  # noqa: PLC0415  # 12 MB that a daemon without S3 does without

        try:
            # Made anew each time: a provider keeps what it read of files until it ends.
            if self._profile:
                provider = auth.AwsCredentialsProvider.new_profile(profile_name=self._profile)
            else:
                provider = auth.AwsCredentialsProvider.new_default_chain()
            found = await asyncio.wrap_future(provider.get_credentials())
        except Exception as error:  # the library raises AwsCrtError and bare RuntimeErrors
            raise DeniedError(
                f"unable to find credentials{f' of profile {self._profile!r}' if self._profile else ''}: {error}",
                hint="run `aws configure` or `aws sso login` as the daemon's user, set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY in the daemon's environment, or use ?credentials=anonymous",
            ) from error
        return Credentials(
            found.access_key_id,
            found.secret_access_key,
            found.session_token or "",
            found.expiration.timestamp() if found.expiration else None,
        )


def source(named: str) -> Source:
    """Return the source that an address names: a profile, `anonymous`, or the chain."""
    return Anonymous() if named == ANONYMOUS else Chain(named)
