"""The main job, through real processes, sockets and files."""

import os
from pathlib import Path

from support import oracle
from support.daemon import DaemonProcess


def test_saved_content_reaches_the_store_under_its_name(daemon: DaemonProcess, tmp_path: Path) -> None:
    """A saved file is in the store, byte for byte, and its receipt tells where."""
    source = tmp_path / "model.bin"
    source.write_bytes(os.urandom(3 << 20))
    receipt = daemon.run().save_file(source).wait(30)
    assert (daemon.store / receipt.key).read_bytes() == source.read_bytes()
    assert oracle.contents(daemon.store)[receipt.job] == {b"model.bin": source.read_bytes()}
