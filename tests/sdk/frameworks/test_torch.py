"""Tensors, state_dicts and checkpoints of torch."""

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from dropoff import Artifact, UsageError
from dropoff.serializers.choosing import BUILT_IN, ways
from support.daemon import DaemonProcess

SAFETENSORS = next(one for one in BUILT_IN if one.name == "safetensors")
TORCH = next(one for one in BUILT_IN if one.name == "torch")


def model() -> torch.nn.Module:
    """Return a model with weights, buffers and a count."""
    torch.manual_seed(7)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))


def checkpoint() -> dict[str, Any]:
    """Return what people keep of a training, which is more than tensors."""
    net = model()
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    return {
        "model": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "loss": float("nan"),
        "rng": torch.get_rng_state(), "shape": torch.Size([2, 3]), "dtype": torch.bfloat16, "betas": (0.9, [None]),
    }  # fmt: skip


def tied() -> dict[str, torch.Tensor]:
    """Return weights that share their memory."""
    weight = torch.ones(2, 2)
    return {"encoder": weight, "decoder": weight}


FITS = {
    "tensor": torch.arange(6.0).reshape(2, 3),
    "scalar": torch.tensor(3),
    "empty": torch.zeros(0, 3),
    "view": torch.arange(100)[10:20],
    "alone": {"tensor": torch.ones(1)},
    "state_dict": model().state_dict(),
    "widths": {str(dtype): torch.ones(3).to(dtype) for dtype in (
        torch.bool, torch.uint8, torch.float8_e4m3fn, torch.bfloat16, torch.float16, torch.int32, torch.float64,
        torch.uint16, torch.int64,
    )},
}  # fmt: skip
NEEDS_MORE = {
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "gradient": {"w": torch.ones(2, requires_grad=True)},
    "transposed": torch.ones(2, 3).T,
    "tied": tied(),
    "complex": torch.ones(2, dtype=torch.complex64),
    "sparse": torch.eye(3).to_sparse(),
    "list": [torch.ones(1), 2],
    "checkpoint": checkpoint(),
}
LARGE = """
import resource, torch, dropoff
run = dropoff.init("frameworks", "large")
large = {"a": torch.ones(6 << 20, dtype=torch.float64)}
run.save_object({"a": torch.ones(1)}), run.save_object([torch.ones(1)])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run.save_object(large), run.save_object([large])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def same(left: Any, right: Any) -> bool:
    """Tell whether two objects are the same; a dict is one, whatever its class."""
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, torch.Tensor):
        what = [(type(one), one.dtype, one.shape, one.layout, one.requires_grad) for one in (left, right)]
        return what[0] == what[1] and str(left) == str(right)
    return type(left) is type(right) and repr(left) == repr(right)


def back(obj: Any) -> tuple[Any, str, bytes]:
    """Return an object once written and read, what by, and the file."""
    (way,) = ways(obj, b"x", None, allow_pickle=False)
    file = io.BytesIO()
    way.serializer.write(obj, file)
    file.seek(0)
    assert way.serializer.read
    return way.serializer.read(file), way.serializer.name, file.getvalue()


@pytest.mark.parametrize("case", FITS)
def test_tensors_with_names_are_safetensors(case: str) -> None:
    """Tensors and state_dicts come back exactly, in order; the library reads the same; a model loads them."""
    found, name, data = back(FITS[case])
    assert (name, same(found, FITS[case])) == ("safetensors", True)
    theirs = safetensors.torch.load(data)
    ours = FITS[case] if isinstance(FITS[case], dict) else {"tensor": FITS[case]}
    assert theirs.keys() == ours.keys()
    assert all(same(theirs[key], ours[key]) for key in ours)
    if case == "state_dict":
        model().load_state_dict(found)


@pytest.mark.parametrize("case", NEEDS_MORE)
def test_what_safetensors_would_lose_is_kept_by_torch(case: str) -> None:
    """Sharing, gradients, order in memory and nesting are kept in a .pt file, and reading it runs nothing."""
    found, name, _ = back(NEEDS_MORE[case])
    assert (name, same(found, NEEDS_MORE[case])) == ("torch", True)
    if case == "tied":
        assert found["encoder"].data_ptr() == found["decoder"].data_ptr()


def test_a_checkpoint_is_refused_where_reading_it_would_run_code(shared: DaemonProcess) -> None:
    """What `weights_only` would not read back is refused when it is saved, with its place."""
    artifact = Artifact("refused", "test", settings=shared.settings)
    endless: list[Any] = [torch.ones(1)]
    endless.append(endless)
    for obj, cause in {
        "array": ({"w": torch.ones(1), "a": {"b": np.ones(1)}}, r"\['b'\] is a numpy.ndarray"),
        "key": ({np.int64(1): torch.ones(1)}, "the key .* is a numpy.int64"),
        "endless": (endless, "holds itself"),
        "module": (model(), "Sequential: nothing here holds one"),
    }.values():
        with pytest.raises(UsageError, match=cause):
            artifact.add(obj, "x")
    artifact.add(model(), "x", allow_pickle=True)


class Trap:
    """Unpickled, it leaves a mark."""

    mark = ""

    def __reduce__(self) -> Any:
        return os.mkdir, (self.mark,)


def test_a_pt_file_runs_nothing(tmp_path: Path) -> None:
    """A checkpoint that somebody made to do harm is refused by its reader."""
    Trap.mark = str(tmp_path / "mark")
    file = io.BytesIO()
    torch.save({"w": Trap()}, file)
    assert TORCH.read
    for data in (file.getvalue(), pickle.dumps(Trap(), protocol=2)):
        with pytest.raises(pickle.UnpicklingError):
            TORCH.read(io.BytesIO(data))
    assert not Path(Trap.mark).exists()


def test_objects_of_torch_go_to_the_store_and_come_back(shared: DaemonProcess) -> None:
    """What is stored has the name and the content type of its format, and comes back through the daemon."""
    artifact = Artifact("torch", "test", settings=shared.settings)
    artifact.add(FITS["state_dict"], "weights")
    artifact.add(FITS["state_dict"], "weights.pt")
    artifact.add(NEEDS_MORE["checkpoint"], "last")
    run = shared.run("frameworks", "torch")
    run.log_artifact(artifact).wait(30)
    version = run.use_artifact("torch")
    assert [(entry.path, entry.serializer) for entry in version.entries] == [
        (b"last.pt", "torch"), (b"weights.pt", "torch"), (b"weights.safetensors", "safetensors"),
    ]  # fmt: skip
    for name in ("weights.pt", "weights.safetensors"):
        assert same(version.get(name), FITS["state_dict"])
    assert same(version.get("last"), NEEDS_MORE["checkpoint"])


def test_large_tensors_are_not_copied_in_memory(shared: DaemonProcess) -> None:
    """48 MiB of tensors are written twice with less than half as much memory more, by either format."""
    made = subprocess.run(
        [sys.executable, "-c", LARGE], env=os.environ | shared.environment, capture_output=True, text=True, check=True
    )
    assert int(made.stdout) < 24 << 10
