"""Job ids: unique, and in the order of the calls."""

from dropoff.ids import is_job_id, new_job_id


def test_job_ids_of_one_process_come_in_order() -> None:
    """Deposits are taken in the order of their ids, which is that of the calls, however close they are."""
    made = [new_job_id() for _ in range(5000)]
    assert (made, len(set(made))) == (sorted(made), 5000)
    assert all(map(is_job_id, made))
