import threading
import time

import pytest

from cbsn.app.jobs import AT_ONCE, LATER, Cancelled, Job, JobQueue


@pytest.fixture
def queue():
    queue = JobQueue()
    yield queue
    queue.close()


@pytest.fixture
def done():
    """What was done, and how it ended."""
    return []


@pytest.fixture
def job(done):
    def make(user, name, priority=AT_ONCE, run=lambda job: None):
        def ended(job, error):
            done.append((name, error and type(error).__name__))

        return Job(user, run, ended, priority)

    return make


def _work(queue, done, count):
    """Does the jobs until some of them have ended."""
    worker = threading.Thread(target=queue.work)
    worker.start()
    while len(done) < count:
        time.sleep(0.001)
    queue.close()
    worker.join()


def test_users_take_turns(queue, done, job):
    for name in ("a1", "a2", "a3"):
        queue.put(job("a", name))
    for name in ("b1", "b2"):
        queue.put(job("b", name))
    _work(queue, done, 5)
    assert done == [(name, None) for name in ("a1", "b1", "a2", "b2", "a3")]


def test_what_a_user_waits_for_comes_before_a_batch(queue, done, job):
    queue.put(job("a", "batch 1", LATER))
    queue.put(job("a", "batch 2", LATER))
    queue.put(job("a", "shown"))
    assert [each.priority for each in queue.order()] == [AT_ONCE, LATER, LATER]


def test_the_order_is_that_in_which_they_are_done(queue, done, job):
    jobs = [job("a", "1"), job("a", "2"), job("b", "1"), job("c", "1"), job("b", "2")]
    for each in jobs:
        queue.put(each)
    order = queue.order()
    assert order == [jobs[0], jobs[2], jobs[3], jobs[1], jobs[4]]
    seen = []
    for each in jobs:
        each.run = seen.append
    _work(queue, done, len(jobs))
    assert seen == order


def test_an_error_ends_only_its_own_job(queue, done, job):
    def fail(job):
        raise ValueError

    queue.put(job("a", "fails", run=fail))
    queue.put(job("a", "works"))
    _work(queue, done, 2)
    assert done == [("fails", "ValueError"), ("works", None)]


def test_a_waiting_job_is_cancelled_at_once(queue, done, job):
    waiting = job("a", "waiting")
    queue.put(waiting)
    queue.cancel(waiting)
    assert done == [("waiting", "Cancelled")]
    assert queue.order() == []
    queue.cancel(waiting)
    assert len(done) == 1


def test_a_running_job_ends_at_its_next_report(queue, done, job):
    started, went_on = threading.Event(), threading.Event()

    def run(job):
        job.report(0.5)
        started.set()
        went_on.wait()
        job.report(0.7)

    running = job("a", "running", run=run)
    queue.put(running)
    worker = threading.Thread(target=queue.work)
    worker.start()
    started.wait()
    assert running.is_running and running.share == 0.5
    assert queue.order() == [running]
    queue.cancel(running)
    went_on.set()
    while not done:
        time.sleep(0.001)
    assert done == [("running", "Cancelled")] and running.share == 0.5
    queue.close()
    worker.join()


def test_a_closed_queue_takes_nothing(queue, job):
    queue.close()
    with pytest.raises(Cancelled):
        queue.put(job("a", "late"))


def test_shares_add_up_to_no_more_than_one(job):
    each = job("a", "adds")
    for _ in range(3):
        each.add(0.4)
    assert each.share == 1
