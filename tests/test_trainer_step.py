"""A training step: number formats, accumulation, checkpointing, late results."""

import contextlib
import functools

import numpy as np
import pytest
import torch
from small_training import MODEL, assert_same_state, train
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sv.data.loader import Batch
from sv.errors import SvError, UsageError
from sv.nnet.architectures import build_embedding_network
from sv.nnet.margin import MarginHead
from sv.nnet.recompute import set_checkpointing
from sv.train.config import read_train_config, validate_processes
from sv.train.device import explain_compiler, set_precision
from sv.train.group import Group
from sv.train.step import TrainStep
from sv.train.trainer import AsyncMetrics, prefetch

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread():
    """Threads of a tiny network only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_resumes_bit_for_bit(small_egs, tmp_path, precision):
    changes = {"precision": precision, "num_epochs": 1}
    at_once = train(small_egs, tmp_path / "a" / MODEL, **changes)
    pieced = None
    for max_steps in (3, None):
        pieced = train(small_egs, tmp_path / "b" / MODEL, max_steps=max_steps, **changes)
    state = at_once.load("checkpoints/epoch_001.pt")
    assert_same_state(state, pieced.load("checkpoints/epoch_001.pt"))
    assert bool(state["scaler"]) == (precision == "fp16")
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in state["net"].values())


def test_what_the_device_has_not_is_refused(small_egs, tmp_path):
    with pytest.raises(UsageError, match="'tf32' needs a GPU; set fp32 or bf16"):
        train(small_egs, tmp_path / MODEL, precision="tf32")
    with pytest.raises(UsageError, match="precision must be one of fp32, tf32, bf16, fp16"):
        train(small_egs, tmp_path / MODEL, precision="int8")


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Dropout2d(0.1), "the network's 1 is a dropout: steps must be repeatable"),
        (nn.BatchNorm1d(4, momentum=None), "the network's 1 needs a momentum"),
    ],
)
def test_what_would_not_compute_the_same_again_is_refused(small_egs, tmp_path, layer, message):
    config = read_train_config(small_egs.write_config(tmp_path / "c.toml"))
    net = nn.Sequential(nn.Linear(4, 4), layer)
    with pytest.raises(UsageError, match=message):
        TrainStep(net, MarginHead(4, 12, 30.0), config, CPU, Group())


def build_step(small_egs, tmp_path, **changes):
    config = read_train_config(small_egs.write_config(tmp_path / "c.toml", **changes))
    torch.manual_seed(1)
    net = build_embedding_network(MODEL, 21, config.embedding_dim, config.network)
    set_checkpointing(net, config.checkpointing)
    return TrainStep(net, MarginHead(config.embedding_dim, 12, 30.0), config, CPU, Group())


def get_gradients(step):
    modules = (step.net, step.head)
    return [p.grad.clone() for module in modules for p in module.parameters()]


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(0)
    speakers = torch.randint(12, (8,), generator=generator)
    return torch.randn(8, 60, 21, generator=generator), speakers


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_another_arithmetic_of_nearly_the_same_value(
    small_egs, tmp_path, batch, precision
):
    results = []
    for name in ("fp32", precision):
        step = build_step(small_egs, tmp_path, precision=name)
        step.net.train()
        # From 65536, the first steps of fp16 would overflow and be skipped.
        enabled = name == "fp16"
        step.scaler = torch.amp.GradScaler("cpu", init_scale=256.0, enabled=enabled)
        loss, _ = step.compute_gradients(*batch, margin=0.2, micro_batch_size=8)
        step.scaler.unscale_(step.optimizer)
        results.append((loss.item(), torch.cat([g.flatten() for g in get_gradients(step)])))
    (loss, exact), (half_loss, half) = results
    assert half_loss == pytest.approx(loss, rel=0.02) and half_loss != loss
    assert torch.cosine_similarity(exact, half, dim=0) > 0.98
    assert half.norm().item() == pytest.approx(exact.norm().item(), rel=0.05)


def test_accumulated_gradients_are_those_of_the_batch(small_egs, tmp_path, batch):
    step = build_step(small_egs, tmp_path)
    step.net.eval()  # in training a normalisation sees its micro-batch alone
    gradients, losses = [], []
    for size in (8, 4, 1):
        loss, correct = step.compute_gradients(*batch, margin=0.2, micro_batch_size=size)
        gradients.append(get_gradients(step))
        losses.append((loss.item(), correct.item()))
    assert losses[1] == pytest.approx(losses[0]) and losses[2] == pytest.approx(losses[0])
    for parts in gradients[1:]:
        for a, b in zip(gradients[0], parts, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


class Convolutions(TorchDispatchMode):
    """Counts convolutions, the backward pass's own apart."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func == torch.ops.aten.convolution.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("checkpointing", ["selective", "full"])
def test_checkpointed_activations_change_nothing(
    small_egs, tmp_path, batch, precision, checkpointing
):
    results = []
    for mode in ("none", checkpointing):
        step = build_step(small_egs, tmp_path, precision=precision, checkpointing=mode)
        step.net.train()
        runs = []
        block = step.net.resnet.stages[1][0]
        block.register_forward_pre_hook(lambda *_, runs=runs: runs.append(1))
        with Convolutions() as convolutions:
            loss, _ = step.compute_gradients(*batch, margin=0.2, micro_batch_size=4)
        runs.append(convolutions.count)
        buffers = {key: b.clone() for key, b in step.net.named_buffers()}
        results.append((loss.item(), get_gradients(step), buffers, runs))
    (loss, plain, buffers, runs), (loss2, checkpointed, buffers2, runs2) = results
    assert loss == loss2
    for a, b in zip(plain, checkpointed, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    # Two micro-batches, each computed twice, each counted once; selective multiplies once.
    assert (len(runs) - 1, len(runs2) - 1) == (2, 4)
    assert runs2[-1] == runs[-1] if checkpointing == "selective" else runs2[-1] > runs[-1]
    assert all(torch.equal(buffers[key], buffers2[key]) for key in buffers)
    assert buffers2["resnet.stages.1.0.norm1.num_batches_tracked"] == 2


@pytest.fixture
def traced(monkeypatch):
    """Traced and differentiated by the compiler; no code is generated, which takes a minute."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("mode", ["none", "selective", "full"])
def test_a_compiled_step_is_the_same_step(small_egs, tmp_path, batch, mode):
    found = []
    for compiled in (False, True):
        step = build_step(small_egs, tmp_path, checkpointing=mode, compile=compiled)
        step.net.train()
        loss, _ = step.compute_gradients(*batch, margin=0.2, micro_batch_size=4)
        buffers = torch.cat([b.flatten().float() for b in step.net.buffers()])
        found.append((loss, torch.cat([g.flatten() for g in get_gradients(step)]), buffers))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    if mode == "none":  # as extraction would use it
        lengths = torch.tensor([60, 33, 20, 41, 60, 8, 59, 25])
        with torch.no_grad():
            padded = [run(batch[0], lengths) for run in (step.net.eval(), torch.compile(step.net))]
        torch.testing.assert_close(*padded, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("traced")
def test_a_compiled_training_is_resumed_by_one_that_is_not(small_egs, tmp_path):
    """And gives nearly the same: rounding aside it is the same computation."""
    plain = train(small_egs, tmp_path / "a" / MODEL, num_epochs=1)
    for max_steps, compiled in ((3, True), (None, False)):
        changes = {"num_epochs": 1, "compile": compiled}
        pieced = train(small_egs, tmp_path / "b" / MODEL, max_steps=max_steps, **changes)
    losses = [run.epochs[1]["loss"] for run in (plain, pieced)]
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


def test_what_cannot_be_compiled_is_one_line(small_egs, tmp_path):
    def fail(*_):
        raise OSError("no C++ compiler\n\nread more")

    run = torch.compile(lambda x: -x, backend=fail)
    with pytest.raises(SvError, match="set compile = false") as raised, explain_compiler(True):
        run(torch.ones(1))
    assert "no C++ compiler" in str(raised.value) and "\n" not in str(raised.value)
    config = read_train_config(small_egs.write_config(tmp_path / "c.toml", compile=True))
    validate_processes(config, 1)
    with pytest.raises(UsageError, match="compile = true is for one process, and here are 2"):
        validate_processes(config, 2)


@pytest.mark.parametrize(
    ("precision", "capability", "rounds"),
    [("fp32", (9, 0), False), ("tf32", (8, 0), True), ("bf16", (8, 0), False)],
)
def test_only_tf32_rounds_products_on_a_gpu(monkeypatch, precision, capability, rounds):
    """On a made-up card: torch lets cuDNN round by itself, and then fp32 would not be fp32."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "an older card")
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        set_precision(precision, torch.device("cuda"))
        assert torch.backends.cuda.matmul.allow_tf32 == rounds
        assert torch.backends.cudnn.allow_tf32 == rounds
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    if precision != "fp32":
        with pytest.raises(UsageError, match=f"'{precision}': not on an older card; set fp16"):
            set_precision(precision, torch.device("cuda"))


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
    metrics.begin()
    FakeEvent.now_ms += 100.0
    loss, correct = torch.tensor(loss), torch.tensor(3)
    metrics.put(step, loss, correct, crops=8, waited_s=waited_s)


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


class FakeStream:
    """A stream that notes what it waits for."""

    waited_for: list[int] = []

    def __init__(self, device):
        self.events = 0

    def record_event(self):
        self.events += 1
        return self.events

    def wait_event(self, event):
        FakeStream.waited_for.append(event)


def test_the_next_batch_is_copied_while_a_gpu_computes(monkeypatch):
    computing, events = FakeStream(None), FakeStream.waited_for
    events.clear()
    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: computing)
    pinned, used = [], []
    for name, instead in (
        ("pin_memory", lambda tensor: pinned.append(tensor) or tensor),
        ("to", lambda tensor, device, non_blocking: tensor),
        ("record_stream", lambda tensor, stream: used.append(stream)),
    ):
        monkeypatch.setattr(torch.Tensor, name, instead)

    def read():
        for n in range(4):
            yield Batch(np.full((2, 3, 5), n, np.float32), np.full(2, n), n / 10)
        raise SvError("a.ark: truncated")

    copied = prefetch(read(), torch.device("cuda"))
    for n in range(3):
        crops, speakers, read_s = next(copied)
        assert (crops == n).all() and speakers.tolist() == [n, n] and read_s == n / 10
        # This batch is there, the one after it is on its way and no other.
        assert events == list(range(1, n + 2)) and used == 2 * (n + 1) * [computing]
        assert 2 * (n + 1) <= len(pinned) <= 2 * (n + 2)
    with pytest.raises(SvError, match="truncated"):
        next(copied)


def test_a_cpu_is_asked_at_once():
    metrics = AsyncMetrics(torch.device("cpu"), Group())
    metrics.put(5, torch.tensor(2.0), torch.tensor(1), crops=4, waited_s=0.1)
    (result,) = metrics.take()
    assert (result.step, result.loss, result.correct, result.wait_s) == (5, 2.0, 1, 0.1)
