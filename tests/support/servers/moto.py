"""moto: AWS's answers and edge cases, down to the wording; verifies no byte of what it is sent, nor who sends it."""

import sys
from pathlib import Path

from support.ports import reserved
from support.servers.address import Address
from support.servers.process import Process
from support.servers.server import keys, new_bucket


class Moto:
    """A moto server; what it stores is in memory and gone with it."""

    def __init__(self, home: Path) -> None:
        self._port = reserved()
        host, port = self._port.getsockname()
        command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", host, "-p", str(port)]
        self._process = Process(command, home / "moto.log")
        self._process.until_it_answers(port)
        access_key, secret_key = keys()
        self.address = new_bucket(
            Address(
                endpoint=f"http://{host}:{port}",
                region="us-east-1",
                bucket="",
                access_key=access_key,
                secret_key=secret_key,
            )
        )

    def stop(self) -> None:
        """End it."""
        self._process.stop()
        self._port.close()
