"""Models: found by what they are, opened by their id, published and archived; and who used them."""

import json
from pathlib import Path

import pytest

import dropoff
from dropoff import NotStoredError, UsageError
from dropoff.models import StoredModel
from dropoff.questions import VersionState
from support.daemon import DaemonProcess


def log(daemon: DaemonProcess, path: Path, text: str, accuracy: float, *, run: str = "trainer") -> str:
    """Log a version of a model and return its id."""
    path.write_text(text)
    delivery = daemon.run(name=run).log_model(
        path, "resnet", 'torch "2"', ["prod"], ["best"], metadata={"acc": accuracy}, description="weights"
    )
    delivery.wait(60)
    return delivery.id


def test_a_model_has_an_id_a_framework_and_a_state(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Models are queried by project, name, framework, tags and metadata; archived ones only when asked for."""
    first, second = (log(daemon, tmp_path / "best.pt", f"weights {n}", n / 10) for n in (7, 9))
    settings = daemon.settings
    found = dropoff.find_models("project", "res*", framework='torch "2"', tags=["best"], settings=settings)
    assert [(one.id, one.framework, one.state) for one in found] == [
        (second, 'torch "2"', VersionState.DRAFT), (first, 'torch "2"', VersionState.DRAFT),
    ]  # fmt: skip
    assert dropoff.find_models(framework="jax", settings=settings) == []
    (best,) = dropoff.find_models(where="acc>0.8", settings=settings)
    assert Path(best.path("best.pt")).read_text() == "weights 9"
    old = dropoff.open_model(first, settings=settings)
    old.archive()
    best.publish()
    assert [one.id for one in dropoff.find_models(settings=settings)] == [second]
    assert [one.id for one in dropoff.find_models(states=["archived"], settings=settings)] == [first]
    assert [one.id for one in dropoff.find_models(states=["published"], settings=settings)] == [second]
    assert dropoff.open_model(first, settings=settings).state is VersionState.ARCHIVED
    old.restore()
    assert len(dropoff.find_models(settings=settings)) == 2
    with pytest.raises(NotStoredError, match="the model 'none'"):
        dropoff.open_model("none", settings=settings)


def test_wrong_arguments_leave_nothing_behind(daemon: DaemonProcess, tmp_path: Path) -> None:
    """What is refused for what is said of it was not taken into custody."""
    (tmp_path / "best.pt").write_text("weights")
    run = daemon.run()
    artifact = dropoff.Artifact("shards", "dataset", settings=daemon.settings)
    with pytest.raises(UsageError):
        run.log_model(tmp_path / "best.pt", metadata={"acc": object()})
    with pytest.raises(UsageError):
        run.log_model(tmp_path / "best.pt", aliases=["v1"])
    with pytest.raises(UsageError):
        dropoff.find_models(states=["nonsense"], settings=daemon.settings)
    assert daemon.command("jobs").stdout == "no jobs\n"
    artifact.add_file(tmp_path / "best.pt")
    with pytest.raises(UsageError):
        run.finish_artifact(artifact, "group", aliases=["v1"])
    assert len(json.loads(daemon.command("jobs", "--json").stdout)) == 1


def test_a_run_has_the_models_that_it_used_and_made(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Models stand under "input" and "output" of a run, also once it is over; other artifacts do not."""
    log(daemon, tmp_path / "a.pt", "a", 0.1)
    log(daemon, tmp_path / "a.pt", "b", 0.2)
    run = daemon.run(name="tuner")
    used = run.use_artifact("resnet:v0")
    assert isinstance(used, StoredModel)
    run.log_artifact(tmp_path / "a.pt", "data", "dataset")
    (tmp_path / "tuned.pt").write_text("tuned")
    run.log_model(tmp_path / "tuned.pt")
    assert not run.flush(60).pending
    stored = dropoff.open_run("project", "tuner", settings=daemon.settings)
    for one in (run, stored):
        assert [(model.name, model.version) for model in one.models["input"]] == [("resnet", 0)]
        assert [(model.name, model.version) for model in one.models["output"]] == [("tuned.pt", 0)]
    trainer = dropoff.open_run("project", "trainer", settings=daemon.settings)
    last = trainer.models["output"][-1]
    assert (Path(last.get_local_copy()) / "a.pt").read_text() == "b"


def test_a_published_model_is_never_pruned(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Rules that keep nothing else of an artifact keep what is published."""
    first = log(daemon, tmp_path / "a.pt", "a", 0.1)
    for number in (2, 3):
        log(daemon, tmp_path / "a.pt", f"{number}", number / 10)
    dropoff.open_model(first, settings=daemon.settings).publish()
    daemon.command("prune", "project", "--keep", "*/*: newest 0", "--apply")
    assert [one.version for one in dropoff.find_models(settings=daemon.settings)] == [2, 0]
