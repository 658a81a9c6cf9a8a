"""botocore's client: a stranger's view of a store, for tests that set one up or look into it."""

from typing import Any

import botocore.session
from botocore.config import Config

from support.servers.address import Address


def client(address: Address) -> Any:
    """Return a client that tries everything once."""
    return botocore.session.get_session().create_client(
        "s3",
        region_name=address.region,
        endpoint_url=address.endpoint,
        aws_access_key_id=address.access_key,
        aws_secret_access_key=address.secret_key,
        aws_session_token=address.session_token or None,
        config=Config(
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            # Checksums where a test asks for them; by default half of these servers refuse or ignore them.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
