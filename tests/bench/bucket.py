"""Buckets to send to, and daemons that do."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench import sink as forgetting
from bench.rig import Rig, write_file
from support.daemon import DaemonProcess
from support.ports import reserved
from support.servers.address import Address
from support.servers.process import Process

_FIRST_BYTES = 16 << 10


@contextmanager
def daemon(rig: Rig, name: str, server: Address, in_flight_max: int = 16) -> Iterator[DaemonProcess]:
    """Run a daemon that delivers to a bucket, and knows it already."""
    os.environ |= {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
    store = f"s3://{server.bucket}/dropoff?endpoint={server.endpoint}&region={server.region}&style=path"
    with rig.daemon(name, store=store, in_flight_max=in_flight_max) as daemon:
        daemon.run().save_file(write_file(daemon.root / "first", _FIRST_BYTES)).wait()
        yield daemon


@contextmanager
def sink(rig: Rig, name: str, pace: int = 0) -> Iterator[Address]:
    """Run a server that forgets what it is sent."""
    with reserved() as port:
        host, number = port.getsockname()
        server = Process(
            [sys.executable, forgetting.__file__, host, str(number), str(pace)], rig.directory / f"{name}.log"
        )
        try:
            server.until_it_answers(number)
            yield Address(
                endpoint=f"http://{host}:{number}", region="us-east-1", bucket="bench", access_key="bench",
                secret_key="bench",
            )  # fmt: skip
        finally:
            server.stop()
