"""What pool workers run: a module, since processes that are spawned import it anew."""

from dropoff import init


def save_two(path: str) -> list[str]:
    """Save a file twice with a run of one's own, as a data loader's worker would."""
    run = init("project", "run")
    return [run.save_file(path).id, run.save_file(path).id]
