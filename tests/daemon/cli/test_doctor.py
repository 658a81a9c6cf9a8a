"""`dropoff doctor` on a directory, on a store that does all, on poor ones, and on a bucket that says no."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dropoffd.errors import Exit
from support.fault_server.behaviour import Behaviour
from support.fault_server.calls import Operation
from support.fault_server.faults import ACCESS_DENIED, NO_SUCH_BUCKET
from support.fault_server.server import FaultServer
from support.servers.address import Address


def doctor(*arguments: str, address: Address | None = None) -> "subprocess.CompletedProcess[str]":
    """Run the command, with the credentials of a server."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("DROPOFF_", "AWS_"))}
    if address is not None:
        environment |= {"AWS_ACCESS_KEY_ID": address.access_key, "AWS_SECRET_ACCESS_KEY": address.secret_key}
    return subprocess.run(
        [sys.executable, "-m", "dropoffd", "doctor", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def url(address: Address) -> str:
    """Return a server's bucket as a store."""
    return f"s3://{address.bucket}/artifacts?endpoint={address.endpoint}&region={address.region}"


def test_a_directory_is_well_and_left_as_it_was(tmp_path: Path) -> None:
    """A directory passes every check, and nothing is in it afterwards."""
    done = doctor(str(tmp_path / "store"))
    assert (done.returncode, "all is well" in done.stdout, "FAILS" in done.stdout) == (Exit.OK, True, False)
    assert os.listdir(tmp_path / "store") == []


def test_a_bucket_is_well_and_left_as_it_was(fault_server: FaultServer) -> None:
    """A bucket that does what AWS does passes every check, and nothing is in it afterwards."""
    done = doctor(url(fault_server.address), "--json", address=fault_server.address)
    assert done.returncode == Exit.OK, done.stderr
    found = json.loads(done.stdout)
    assert (found["limits"]["verifies"], found["limits"]["creates_atomically"]) == ("crc64nvme", True)
    assert (fault_server.objects, fault_server.uploads) == ({}, [])


def test_what_a_store_lacks_is_said(fault_server: FaultServer) -> None:
    """A store that verifies nothing and honours no condition is told apart, and can be used by one writer."""
    fault_server.behaviour = Behaviour(verifies=frozenset(), put_conditions=False, complete_conditions=False)
    done = doctor(url(fault_server.address), address=fault_server.address)
    assert "verifies nothing" in done.stdout
    assert done.stdout.count("NOT atomic") == 2
    assert "FAILS" not in done.stdout


def test_a_missing_permission_is_named(fault_server: FaultServer) -> None:
    """A permission that is denied is named as AWS names it, and the exit code says that a person is needed."""
    fault_server.inject(Operation.LIST, ACCESS_DENIED, times=3)
    done = doctor(url(fault_server.address), address=fault_server.address)
    assert (done.returncode, "MISSING permission s3:ListBucket" in done.stdout) == (Exit.TROUBLED, True)


@pytest.mark.parametrize(
    ("fault", "hint"),
    [(NO_SUCH_BUCKET, "create the bucket"), (ACCESS_DENIED, "allow s3:PutObject")],
    ids=["no bucket", "denied"],
)
def test_a_bucket_that_says_no_is_explained(fault_server: FaultServer, fault: object, hint: str) -> None:
    """Where nothing can be stored at all the error has the store's reason and what to do."""
    fault_server.inject(Operation.PUT, fault)  # type: ignore[arg-type]  # a table of faults
    done = doctor(url(fault_server.address), address=fault_server.address)
    assert (done.returncode, hint in done.stderr) == (Exit.FAILED, True)
