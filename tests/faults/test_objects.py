"""Objects where the spool's disk is full, not ours, or one that cannot have a file without a name."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import dropoff
from dropoff import SpoolFullError
from dropoff.scratch import scratch
from faults import mounts
from support.daemon import DaemonProcess, MakeDaemon

ARRAY = np.arange(1 << 20)


@mounts.needs_root
def test_an_object_that_does_not_fit_is_refused(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """With the spool's disk full an object is refused like a file, nothing of it stays, and the next one is taken."""
    with mounts.tmpfs(tmp_path / "state", "size=32m"):
        run = make_daemon().start().run()
        run.save_object({"a": 1}).wait(30)
        with pytest.raises(SpoolFullError):  # in the middle of an array, where NumPy does not say why
            run.save_object(np.zeros(4 << 20))
        filler = mounts.fill(tmp_path / "state")
        for obj in (ARRAY, {"a": ARRAY}, "x" * (8 << 20)):
            with pytest.raises(SpoolFullError) as raised:
                run.save_object(obj)
            assert "DROPOFF_STATE_DIR" in raised.value.hint
        filler.unlink()
        assert run.save_object(ARRAY).wait(30).size_bytes == ARRAY.nbytes + 128


@mounts.needs_root
@pytest.mark.skipif(not shutil.which("bindfs"), reason="BINDFS IS MISSING: no disk without unnamed files")
def test_a_disk_without_unnamed_files_will_do(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """Where the spool's disk has no unnamed files, a file that is unlinked at once stands in, and is copied."""
    for directory in ("state", "behind"):
        (tmp_path / directory).mkdir(mode=0o700)
    subprocess.run(["bindfs", str(tmp_path / "behind"), str(tmp_path / "state")], check=True)
    try:
        daemon = make_daemon(allow_network_state="true").start()
        with scratch(daemon.settings) as fd:
            assert os.fstat(fd).st_dev == os.stat(tmp_path / "state").st_dev
        delivery = daemon.run().save_object(ARRAY)
        report = delivery.report()
        assert report is not None
        assert (report.capture, delivery.wait(30).size_bytes) == ("copy", ARRAY.nbytes + 128)
        assert list((tmp_path / "behind").glob("dropoff-*")) == []
        daemon.stop()
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "state")], check=True)


def test_an_object_needs_no_state_directory_of_its_own(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """Where the process has no state directory, as in a container without one, the daemon takes its objects still."""
    daemon = make_daemon().start()
    (tmp_path / "file").touch()
    settings = DaemonProcess(tmp_path, state_dir=tmp_path / "file" / "state").settings
    run = dropoff.init("project", "run", settings=settings)
    assert run.save_object(ARRAY).wait(30).size_bytes == ARRAY.nbytes + 128
    assert daemon.store.exists()
