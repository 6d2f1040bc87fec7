import collections
import gc
import threading
import time
import weakref

import numpy as np
import pytest

from cbsn.inference import folder as module
from cbsn.inference.folder import overlap

WAIT = 240  # seconds until a test fails that waits for what does not happen


class Work:
    """Records what is done with items, numbers; some of which fail at some stage."""

    def __init__(self, sizes, failing=(), pause=lambda: 0):
        self.sizes, self.failing, self.pause = sizes, dict(failing), pause
        self.lock = threading.Lock()
        self.at_work = []
        self.running = collections.Counter()
        self.most = 0
        self.orders = collections.defaultdict(list)
        self.reports = []

    def stage(self, name, item, result):
        with self.lock:
            if name == "read":
                self.at_work.append(item)
            self.running[name] += 1
            assert self.running[name] == 1
            self.orders[name].append(item)
            together = sum(self.sizes[i] for i in self.at_work)
            assert len(self.at_work) == 1 or together <= module.BUDGET
            self.most = max(self.most, len(self.at_work))
        time.sleep(self.pause())
        with self.lock:
            self.running[name] -= 1
        if self.failing.get(item) == name:
            raise ValueError(f"{name} {item}")
        return result

    def compute(self, item, given, advance):
        for _ in range(3):
            time.sleep(self.pause())
            advance()
        return self.stage("compute", item, given * 2)

    def report(self, item, written, error):
        assert threading.current_thread() is threading.main_thread()
        with self.lock:
            self.at_work.remove(item)
        self.reports.append((item, written, error and str(error)))

    def run(self):
        overlap(
            range(len(self.sizes)),
            size=lambda item: self.sizes[item],
            read=lambda item: self.stage("read", item, item + 100),
            compute=self.compute,
            write=lambda item, given, _: self.stage("write", item, given + 1),
            report=self.report,
        )
        return self.reports


@pytest.mark.parametrize("seed", range(40))
def test_results_and_order_are_those_of_one_by_one(monkeypatch, seed):
    monkeypatch.setattr(module, "BUDGET", 10)
    random = np.random.default_rng(seed)
    count = int(random.integers(0, 12))
    sizes = random.choice([0, 1, 3, 5, 9, 11, 40], count).tolist()
    stages = random.choice(["read", "compute", "write", "none", "none"], count).tolist()
    work = Work(sizes, enumerate(stages), lambda: random.choice([0, 0.0005, 0.002]))
    expected = [
        (item, None, f"{stage} {item}") if stage != "none" else (item, (item + 100) * 2 + 1, None)
        for item, stage in enumerate(stages)
    ]
    assert work.run() == expected
    assert work.orders["read"] == list(range(count))
    assert work.orders["compute"] == [i for i, stage in enumerate(stages) if stage != "read"]


def test_three_are_at_work_if_they_have_room(monkeypatch):
    monkeypatch.setattr(module, "BUDGET", 9)
    begun = collections.defaultdict(threading.Event)

    def meet(*others):
        for other in others:
            assert begun[other].wait(WAIT)

    def read(item):
        begun["read", item].set()

    def compute(item, *_):
        begun["compute", item].set()
        if item < 4:
            meet(("read", item + 1))
        if item > 0:
            meet(("write", item - 1))

    def write(item, *_):
        begun["write", item].set()
        if item < 3:
            meet(("compute", item + 1), ("read", item + 2))

    errors = []
    overlap(
        range(5),
        size=lambda _: 3,
        read=read,
        compute=compute,
        write=write,
        report=lambda *outcome: errors.append(outcome[-1]),
    )
    assert errors == [None] * 5


def test_large_ones_are_alone(monkeypatch):
    monkeypatch.setattr(module, "BUDGET", 10)
    work = Work([11, 6, 6, 12, 5, 5], pause=lambda: 0.002)
    work.run()
    assert work.most == 2


def test_what_is_written_is_reported_while_the_next_is_computed():
    reports = []

    def compute(item, _, advance):
        end = time.monotonic() + WAIT
        while item and not reports and time.monotonic() < end:
            advance()
        assert len(reports) == item

    overlap(
        range(2),
        size=lambda _: 1,
        read=lambda item: item,
        compute=compute,
        write=lambda *_: "done",
        report=lambda *outcome: reports.append(outcome),
    )
    assert reports == [(0, "done", None), (1, "done", None)]


def test_ctrl_c_tells_the_writing_to_give_up_and_begins_nothing():
    begun = threading.Event()
    reads, gave_up = [], []

    def compute(item, *_):
        if item == 1:
            assert begun.wait(WAIT)
            raise KeyboardInterrupt

    def write(_item, _given, ending):
        begun.set()
        end = time.monotonic() + WAIT
        while not ending() and time.monotonic() < end:
            time.sleep(0.001)
        gave_up.append(ending())

    with pytest.raises(KeyboardInterrupt):
        overlap(
            range(9),
            size=lambda _: 1,
            read=reads.append,
            compute=compute,
            write=write,
            report=lambda *_: pytest.fail("reported"),
        )
    assert gave_up == [True]
    assert reads == [0, 1, 2]


@pytest.mark.parametrize("failing", ["compute", "write", "none"])
def test_a_large_item_is_freed_before_the_next_is_read(monkeypatch, failing):
    monkeypatch.setattr(module, "BUDGET", 0)
    alive = []

    def read(_):
        assert not any(reference() is not None for reference in alive)
        pixels = np.zeros(9)
        alive.append(weakref.ref(pixels))
        return pixels

    def fail(name, given):
        if name == failing:
            raise ValueError(given.size)
        return given

    errors = []
    gc.disable()  # nothing may wait for it
    try:
        overlap(
            range(4),
            size=lambda _: 1,
            read=read,
            compute=lambda _, given, __: fail("compute", given),
            write=lambda _, given, __: fail("write", given) is None,
            report=lambda _, __, error: errors.append(str(error)),
        )
    finally:
        gc.enable()
    assert errors == ["None" if failing == "none" else "9"] * 4
