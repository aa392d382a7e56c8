"""Processes that perform tasks, and die."""

import os
import sys

import pytest
from batch_fakes import all_answers, dies_so_often, echo, task

from liveptv.batch.workers.interface import MOST_LOSSES, Lost
from liveptv.batch.workers.local import LocalWorkers


@pytest.fixture
def workers(request):
    made = LocalWorkers(*request.param)
    yield made
    made.close()


@pytest.mark.parametrize("workers", [(2, echo)], indirect=True)
def test_each_task_is_answered_once_and_by_another_process(workers):
    for name in "abcdef":
        workers.submit(name, task(name))
    found = all_answers(workers, 6)
    assert sorted(ticket for ticket, _ in found) == list("abcdef")
    assert all(answer.why == ticket for ticket, answer in found)
    pids = {int(answer.worker) for _, answer in found}
    assert 1 <= len(pids) <= 2
    assert os.getpid() not in pids


@pytest.mark.parametrize("workers", [(1, dies_so_often)], indirect=True)
def test_a_task_whose_worker_dies_is_given_to_another_one(workers, tmp_path):
    killer = task(kind="recording", number=MOST_LOSSES)
    object.__setattr__(killer, "out", str(tmp_path / "deaths"))
    workers.submit("a", killer)
    found = all_answers(workers, 1)
    assert [type(answer) for _, answer in found] == [Lost] * MOST_LOSSES + [type(found[-1][1])]
    assert found[-1][1].why == f"alive after {MOST_LOSSES} deaths"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("workers", [(1, dies_so_often)], indirect=True)
def test_a_task_that_always_kills_its_worker_is_given_up_and_the_next_one_is_done(workers, tmp_path):
    killer, harmless = task(number=10**6), task(number=0)
    for one, name in ((killer, "deaths"), (harmless, "none")):
        object.__setattr__(one, "out", str(tmp_path / name))
    workers.submit("a", killer)
    workers.submit("b", harmless)
    found = all_answers(workers, 2)
    lost = [answer for ticket, answer in found if ticket == "a"]
    assert [answer.gives_up for answer in lost] == [False] * MOST_LOSSES + [True]
    assert "it kills its worker: killed by SIGKILL, 4 times" in lost[-1].why
    assert [answer.why for ticket, answer in found if ticket == "b"] == ["alive after 0 deaths"]


def test_dask_workers_answer_alike():
    distributed = pytest.importorskip("distributed")
    from liveptv.batch.workers.dask_cluster import DaskWorkers

    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        protocol="tcp",
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        workers = DaskWorkers(cluster.scheduler_address, echo)
        try:
            assert workers.count == 1
            assert cluster.scheduler_address in workers.title
            for name in "abc":
                workers.submit(name, task(name))
            found = all_answers(workers, 3)
            assert sorted((ticket, answer.why) for ticket, answer in found) == [(n, n) for n in "abc"]
        finally:
            workers.close()


def test_a_scheduler_that_is_not_there_is_told(monkeypatch):
    pytest.importorskip("distributed")
    from liveptv.batch.workers import dask_cluster
    from stream.errors import LivePTVError

    monkeypatch.setattr(dask_cluster, "CONNECT_S", 0.5)
    with pytest.raises(LivePTVError, match="no dask scheduler answers"):
        dask_cluster.DaskWorkers("tcp://127.0.0.1:9", echo)


@pytest.mark.parametrize(
    ("address", "is_open"),
    [("tcp://127.0.0.1:8786", False), ("localhost:8786", False), ("tcp://10.0.0.3:8786", True),
     ("10.0.0.3:8786", True), ("tls://10.0.0.3:8786", False)],
)  # fmt: skip
def test_a_scheduler_without_certificates_on_another_computer_is_told(address, is_open):
    from liveptv.batch.workers.dask_cluster import is_open_to_others

    assert is_open_to_others(address) is is_open
