"""A training process that saves without end: the victim of the kill loop.

It says what it does on its standard output, one line each, with the system-wide monotonic time: `saving`, then
`saved` with the job's id once the save returned, then `left` once the file was overwritten or removed. What it
saves follows from the seed alone, so that whoever knows the seed knows what every save must have stored.
"""

import os
import random
import shutil
import sys
import time
from pathlib import Path

import dropoff

SMALL, MEDIUM, LARGE, DIRECTORY, ARTIFACT = "small", "medium", "large", "directory", "artifact"
_SHAPES = (SMALL, MEDIUM, LARGE, DIRECTORY, ARTIFACT)
_WEIGHTS = (50, 14, 14, 10, 12)
_BURST_MOST = 4
# A pause as long as a step of training: deliveries go on in it, and are killed in the middle, too.
_PAUSE_MOST_SECONDS = 0.6


def shape(seed: str, number: int) -> str:
    """Return what kind of thing save `number` is."""
    return random.Random(f"{seed}/{number}/shape").choices(_SHAPES, _WEIGHTS)[0]


def expected(seed: str, number: int) -> dict[bytes, bytes]:
    """Return what save `number` stores: each file's name and bytes."""
    chance = random.Random(f"{seed}/{number}/content")
    kind = shape(seed, number)
    if kind == SMALL:
        return {b"small.bin": chance.randbytes(chance.randrange(60_000))}
    if kind == MEDIUM:
        return {b"medium.bin": chance.randbytes(500 << 10)}
    if kind == LARGE:
        return {b"large.bin": chance.randbytes(chance.randrange(2 << 20, 4 << 20))}
    files = {f"results/part-{n}".encode(): chance.randbytes(chance.randrange(20_000)) for n in range(4)}
    files[b"results/below/medium"] = chance.randbytes(300 << 10)
    if chance.random() < 0.3:
        files[b"results/below/large"] = chance.randbytes(1536 << 10)
    if kind == ARTIFACT:
        files[b"extra"] = chance.randbytes(chance.choice((100, 100_000, 2 << 20)))
    return files


def main(directory: str, seed: str, first: int, last: int) -> None:
    """Save the numbers from `first` up to `last` (without end if that is 0)."""
    os.chdir(directory)
    run = dropoff.init("kills", "run")
    chance = random.Random(f"{seed}/{first}/manners")
    number = first
    while not last or number < last:
        for _ in range(chance.randint(1, _BURST_MOST)):
            _save(run, seed, number, chance)
            number += 1
            if number == last:
                break
        time.sleep(chance.uniform(0, _PAUSE_MOST_SECONDS))


def _save(run: dropoff.Run, seed: str, number: int, chance: random.Random) -> None:
    files = expected(seed, number)
    for name, data in files.items():
        path = Path(os.fsdecode(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    _say("saving", number)
    metadata = {"writer": seed, "number": number}
    if shape(seed, number) == DIRECTORY:
        delivery = run.save_directory("results", metadata=metadata)
    elif shape(seed, number) == ARTIFACT:
        artifact = dropoff.Artifact(seed, "kills", metadata=metadata)
        artifact.add_dir("results", "results")
        artifact.add_file("extra")
        delivery = run.log_artifact(artifact)
    else:
        (name,) = files
        delivery = run.save_file(os.fsdecode(name), metadata=metadata)
    _say("saved", number, delivery.id)
    _leave(files, chance)
    _say("left", number)


def _leave(files: dict[bytes, bytes], chance: random.Random) -> None:
    """Do to the files what users do to them right after a save."""
    if len(files) > 1:
        shutil.rmtree("results")
        return
    (name,) = files
    manner = chance.choice(("in place", "truncated", "replaced", "removed"))
    if manner == "in place":
        with open(name, "r+b") as file:
            file.write(b"\xff" * len(files[name]))
    elif manner == "truncated":
        with open(name, "wb") as file:
            file.write(b"another content")
    elif manner == "replaced":
        with open(name + b".new", "wb") as file:
            file.write(b"\xee" * 1000)
        os.replace(name + b".new", name)
    else:
        os.unlink(name)


def _say(word: str, number: int, job: str = "-") -> None:
    # One write of one line: it is read whole or not at all, also if we are killed in it.
    os.write(1, f"{word} {number} {job} {time.monotonic()}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
