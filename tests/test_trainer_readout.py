"""Losses are read a step late on a GPU; its events are made-up ones here."""

import pytest
import torch

from sv.train.group import Group
from sv.train.trainer import AsyncMetrics


class FakeEvent:
    """An event of a device whose clock the test sets."""

    now_ms = 0.0
    waited_for: list[float] = []

    def __init__(self, enable_timing):
        assert enable_timing
        self.at_ms = None

    def record(self):
        self.at_ms = FakeEvent.now_ms

    def synchronize(self):
        FakeEvent.waited_for.append(self.at_ms)

    def elapsed_time(self, end):
        return end.at_ms - self.at_ms


@pytest.fixture
def on_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(FakeEvent, "now_ms", 0.0)
    monkeypatch.setattr(FakeEvent, "waited_for", [])
    empty = torch.empty

    def unpinned(*size, pin_memory, dtype):
        assert pin_memory  # else the copy would not be asynchronous
        return empty(*size, dtype=dtype)

    monkeypatch.setattr(torch, "empty", unpinned)
    return AsyncMetrics(torch.device("cuda"), Group())


def hand_over(metrics, step, *, waited_s, idle_ms, loss=1.0):
    """A step of 100 ms that begins ``idle_ms`` after the one before has ended."""
    FakeEvent.now_ms += idle_ms
    began = metrics.begin()
    FakeEvent.now_ms += 100.0
    loss, correct = torch.tensor(loss), torch.tensor(3)
    metrics.put(step, loss, correct, crops=8, waited_s=waited_s, began=began)


def test_a_gpu_is_asked_a_step_late(on_gpu):
    hand_over(on_gpu, 0, waited_s=0.5, idle_ms=0.0)
    assert on_gpu.take() == [] and not FakeEvent.waited_for
    hand_over(on_gpu, 1, waited_s=0.5, idle_ms=30.0, loss=float("nan"))
    (first,) = on_gpu.take()
    # Of the first batch the whole wait: nothing was there to compute.
    assert (first.step, first.loss, first.correct, first.crops) == (0, 1.0, 3, 8)
    assert first.wait_s == 0.5 and FakeEvent.waited_for == [100.0]
    hand_over(on_gpu, 2, waited_s=0.01, idle_ms=30.0)
    second, third = on_gpu.take(everything=True)
    # The host waited 500 ms, but for 470 of them the device had work.
    assert second.wait_s == pytest.approx(0.03) and second.loss != second.loss
    assert third.wait_s == pytest.approx(0.01) and third.step == 2
    assert on_gpu.take(everything=True) == []


def test_a_cpu_is_asked_at_once():
    metrics = AsyncMetrics(torch.device("cpu"), Group())
    metrics.put(5, torch.tensor(2.0), torch.tensor(1), crops=4, waited_s=0.1, began=metrics.begin())
    (result,) = metrics.take()
    assert (result.step, result.loss, result.correct, result.wait_s) == (5, 2.0, 1, 0.1)
