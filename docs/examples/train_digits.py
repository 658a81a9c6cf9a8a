"""Train a small network on scikit-learn's handwritten digits and drop everything off on the way.

What most training scripts do, and what trackers tend to get wrong: every epoch writes its checkpoint under the
same file name, one file is deleted right after it was saved, a directory of results is saved last, and the script
exits at once.

    python train_digits.py --epochs 10

With `--ledger FILE` it also writes down what each saved file held at the moment of its save, so that the store can
be checked against it (`dropoff demo` does).
"""

import argparse
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import IO

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import dropoff


class Saver:
    """Saves by dropoff, adds up how long that took, and keeps the ledger."""

    def __init__(self, run: dropoff.Run, ledger: IO[str] | None) -> None:
        self._run = run
        self._ledger = ledger
        self.blocked_seconds = 0.0
        self.saves = 0

    def file(self, path: Path, **arguments: object) -> None:
        """Save one file."""
        sums = {path.name: _sha256(path)} if self._ledger else {}
        began = time.perf_counter()
        delivery = self._run.save_file(path, "output", **arguments)  # type: ignore[arg-type]
        self._count(began, delivery, sums)

    def directory(self, path: Path) -> None:
        """Save all files below a directory."""
        files = [file for file in path.rglob("*") if file.is_file()] if self._ledger else []
        sums = {f"{path.name}/{file.relative_to(path)}": _sha256(file) for file in files}
        began = time.perf_counter()
        delivery = self._run.save_directory(path, "output")
        self._count(began, delivery, sums)

    def _count(self, began: float, delivery: dropoff.Delivery, sums: dict[str, str]) -> None:
        self.blocked_seconds += time.perf_counter() - began
        self.saves += 1
        if self._ledger:
            print(json.dumps({"job": delivery.id, "files": sums}), file=self._ledger, flush=True)


def train(saver: Saver, work: Path, epochs: int) -> float:
    """Train for some epochs, save on the way, and return the accuracy on unseen digits."""
    digits = load_digits()
    train_x, test_x, train_y, test_y = train_test_split(digits.data / 16.0, digits.target, random_state=0)
    model = MLPClassifier(hidden_layer_sizes=(512, 512), random_state=0)
    checkpoint, accuracies = work / "checkpoint.npz", []
    for epoch in range(epochs):
        for start in range(0, len(train_x), 64):
            part = slice(start, start + 64)
            model.partial_fit(train_x[part], train_y[part], classes=np.arange(10))
        accuracies.append(float(model.score(test_x, test_y)))
        _write_checkpoint(model, checkpoint, epoch)
        saver.file(checkpoint, metadata={"epoch": epoch, "accuracy": accuracies[-1]})
        print(f"epoch {epoch}: accuracy {accuracies[-1]:.3f}, checkpoint saved", flush=True)
        if epoch == epochs // 2:
            notes = work / "notes.txt"
            notes.write_text(f"half way at epoch {epoch}\n")
            saver.file(notes)
            notes.unlink()
    saver.directory(_write_results(model, test_x, test_y, accuracies, work / "results"))
    return accuracies[-1]


def _write_checkpoint(model: MLPClassifier, path: Path, epoch: int) -> None:
    arrays = {f"weights{i}": w for i, w in enumerate(model.coefs_)}
    arrays |= {f"biases{i}": b for i, b in enumerate(model.intercepts_)}
    np.savez(path, epoch=epoch, **arrays)


def _write_results(
    model: MLPClassifier, test_x: np.ndarray, test_y: np.ndarray, accuracies: list[float], directory: Path
) -> Path:
    directory.mkdir()
    (directory / "accuracy.json").write_text(json.dumps(accuracies))
    predicted = model.predict(test_x)
    for digit in range(10):
        np.savetxt(directory / f"predicted-for-{digit}.txt", predicted[test_y == digit], fmt="%d")
    confusion = np.zeros((10, 10), dtype=int)
    np.add.at(confusion, (test_y, predicted), 1)
    np.savetxt(directory / "confusion.csv", confusion, fmt="%d", delimiter=",")
    return directory


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    """Train, save, and exit without waiting for anything."""
    parser = argparse.ArgumentParser(description="Train on handwritten digits; drop checkpoints off.")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--ledger", help="write down what each saved file held")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="digits-", dir=os.environ.get("TRAIN_DIR")) as work:
        ledger = open(arguments.ledger, "a", encoding="utf-8") if arguments.ledger else None  # noqa: SIM115
        saver = Saver(dropoff.init(project="digits", tags=["example"], metadata={"hidden": [512, 512]}), ledger)
        began = time.perf_counter()
        accuracy = train(saver, Path(work), arguments.epochs)
        trained = time.perf_counter() - began
        if ledger:
            ledger.close()
    # The directory with everything that was saved is gone by now, and nothing is waited for.
    print(
        f"trained to accuracy {accuracy:.3f} in {trained:.2f} s; {saver.saves} saves held the script up for "
        f"{saver.blocked_seconds * 1000:.1f} ms in all",
        flush=True,
    )


if __name__ == "__main__":
    main()
