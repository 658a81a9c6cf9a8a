"""Objects on every file system: what is made to be handed over is taken by a link, and survives all that files do."""

import json
from pathlib import Path

import numpy as np

from dropoff import Artifact
from support import oracle
from support.daemon import MakeDaemon


def test_an_object_outlives_its_process_and_the_daemon(filesystem: Path, make_daemon: MakeDaemon) -> None:
    """A large object, and what `new_file` made, are in custody without a copy, and delivered by the next daemon."""
    daemon = make_daemon(filesystem).start()
    daemon.command("pause")
    array = np.arange(400_000.0)
    artifact = Artifact("large", "test", settings=daemon.settings)
    artifact.add(array, "array")
    with artifact.new_file("made", "wb") as file:
        file.write(array)
    delivery = daemon.run().log_artifact(artifact)
    jobs = {job["name"]: job["capture"] for job in json.loads(daemon.command("jobs", "--json").stdout)}
    assert {jobs["array.npy"], jobs["made"]} <= {"link", "reflink"}
    sizes = {array.nbytes, array.nbytes + 128}
    found = [path for path in filesystem.rglob("*") if path.is_file() and path.stat().st_size in sizes]
    assert {path.parent for path in found} == {filesystem / "state" / "payloads"}
    daemon.kill()
    daemon.start()
    daemon.command("resume")
    receipt = delivery.wait(60)
    stored = oracle.contents(daemon.store)[receipt.job]
    assert stored[b"made"] == array.tobytes() == stored[b"array.npy"][-array.nbytes :]
    assert daemon.run().use_artifact("large").get().tobytes() == array.tobytes()
