"""Workers of Ray that make one version together."""

import ray

import dropoff
from dropoff.settings import Settings
from support.daemon import DaemonProcess

WORKERS = 4


def test_workers_of_ray_make_one_version(shared: DaemonProcess) -> None:
    """What each worker contributes, twice, as a task does that is tried again, becomes one version with all of it."""

    def contribute(settings: Settings, rank: int) -> str:
        run = dropoff.init("project", "ray", settings=settings)
        for _ in range(2):
            artifact = dropoff.Artifact("features", "dataset", settings=settings)
            with artifact.new_file(f"shard-{rank}") as file:
                file.write(f"rows of {rank}")
            delivery = run.upsert_artifact(artifact, "epoch", writer=f"rank-{rank}")
        return delivery.id

    ray.init(num_cpus=WORKERS, include_dashboard=False, _node_ip_address="127.0.0.1", logging_level="ERROR")
    try:
        worker = ray.remote(max_retries=3)(contribute)
        tasks = [worker.remote(shared.settings, rank) for rank in range(WORKERS)]
        run = shared.run("project", "ray")
        merged = dropoff.Artifact("features", "dataset", settings=shared.settings)
        finished = run.finish_artifact(merged, "epoch", writers=WORKERS)
        assert len(set(ray.get(tasks, timeout=60))) == WORKERS
        receipt = finished.wait(60)
    finally:
        ray.shutdown()
    version = run.use_artifact(f"features:v{receipt.version}")
    assert [entry.path for entry in version.entries] == [b"shard-%d" % rank for rank in range(WORKERS)]
