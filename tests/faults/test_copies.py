"""Background copies and deliveries of the same content, at the same time and without any fault."""

import os
import shutil
from pathlib import Path

import pytest

from support import oracle
from support.daemon import MakeDaemon


@pytest.mark.parametrize("copy_after", [0.1, 0.3])
def test_a_background_copy_never_takes_content_from_a_delivery(
    make_daemon: MakeDaemon, tmp_path: Path, copy_after: float
) -> None:
    """Content that becomes the daemon's own while its delivery runs is delivered, and never missed."""
    daemon = make_daemon(copy_after_seconds=copy_after).start()
    run, wanted = daemon.run(), {}
    for number in range(2):
        root = tmp_path / f"results-{number}"
        root.mkdir()
        files = {f"{n:02}": os.urandom((1 << 20) + 1 + n) for n in range(60)}
        for name, content in files.items():
            (root / name).write_bytes(content)
        job = run.save_directory(root).id
        wanted[job] = {f"{root.name}/{name}".encode(): content for name, content in files.items()}
        shutil.rmtree(root)
    settled = run.flush(60)
    assert (settled.pending, [report.reason for report in settled.troubled]) == (0, [])
    assert oracle.contents(daemon.store) == wanted
