"""The memory of a training step: computed without data, and what a training makes of it."""

import json
from dataclasses import replace

import pytest
import torch
from small_training import MODEL, train
from torch.profiler import ProfilerActivity, profile

from sv.errors import UsageError
from sv.model_name import NetworkConfig
from sv.nnet.architectures import build_embedding_network
from sv.nnet.margin import MarginHead
from sv.nnet.memory import StepMemory, StepModel
from sv.nnet.recompute import MODES, set_checkpointing
from sv.train import memory
from sv.train.config import FineTuningConfig, build_plan, read_train_config
from sv.train.group import Group

SMALL = NetworkConfig("asp", (16, 16, 32, 32))
FEATURES, FRAMES, CROPS, SPEAKERS = 40, 120, 8, 50
CUDA = torch.device("cuda", 0)


def build(name, network=SMALL):
    head = MarginHead(32, SPEAKERS, 30.0)
    return build_embedding_network(name, FEATURES, 32, network), head


def measure_peak(step):
    """What torch's allocator gave at most during a step, by its profiler."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        step()
    events = found.profiler.kineto_results.events()
    sizes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    alive = peak = 0
    for _, size in sorted(sizes, key=lambda event: event[0]):
        alive += size
        peak = max(peak, alive)
    return peak


# Without AVX-512 oneDNN computes bfloat16 on float32 copies, which are no part of the network.
NATIVE_HALF = pytest.mark.skipif(
    "AVX512" not in torch.backends.cpu.get_cpu_capability(), reason="bfloat16 is emulated here"
)


@pytest.mark.parametrize("half", [False, pytest.param(True, marks=NATIVE_HALF)])
@pytest.mark.parametrize("name", ["resnet18_d", "resnet50_d_2222"])
def test_the_computed_memory_is_what_torch_takes(name, half):
    net, head = build(name)
    model = StepModel(lambda: build(name), FEATURES)
    x, y = torch.randn(CROPS, FRAMES, FEATURES), torch.zeros(CROPS).long()
    weights = sum(p.nbytes for module in (net, head) for p in module.parameters())
    crops = []
    for mode in MODES:
        set_checkpointing(net, mode)

        def step():
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss, _ = head(net(x), y, 0.1)
            loss.backward()

        found = model.measure(FRAMES, CROPS, checkpointing=mode, half=half)
        # Weights and momentum were there before.
        taken = measure_peak(step) + x.nbytes + y.nbytes + 2 * weights
        assert found.total(CROPS) == pytest.approx(taken, rel=0.15), mode
        crops.append(found.crop)
        for parameter in (*net.parameters(), *head.parameters()):
            parameter.grad = None
    none, selective, full = crops
    assert 0.45 * none < selective < 0.85 * none and full < selective


def test_a_micro_batch_is_as_large_as_its_memory():
    step = StepMemory(fixed=100, crop=10.0)
    assert (step.total(3), step.count_crops(139), step.count_crops(99)) == (130, 3, 0)


def test_model_info_gives_gb_of_a_crop_and_a_step(run_cli):
    argv = ["--frames", "100", "--micro-batch-size", "24", "resnet18_w0.25"]
    info = json.loads(run_cli("sv.bin.model_info", *argv).stdout)
    assert info["micro_batch_size"] == 24
    found = info["memory_gb"]
    assert set(found) == {"fp32", "half"} and all(set(MODES) == set(found[p]) for p in found)
    for precision in found.values():
        steps = [precision[mode]["step"] for mode in MODES]
        crops = [precision[mode]["crop"] for mode in MODES]
        assert crops == sorted(crops, reverse=True) and steps == sorted(steps, reverse=True)
    plain, half = (found[precision]["none"]["crop"] for precision in ("fp32", "half"))
    assert half == pytest.approx(plain / 2, rel=0.1)
    assert "memory_gb" not in json.loads(
        run_cli("sv.bin.model_info", "--memory", "false", *argv).stdout
    )


class Cards(Group):
    """Processes on cards with so much free, of which this is the first."""

    def __init__(self, *free):
        super().__init__()
        self.free, self.size = free, len(free)

    def gather(self, items):
        assert list(items) == [self.free[0]]
        return list(self.free)


@pytest.fixture
def choose(small_egs, tmp_path, monkeypatch):
    """Choose on cards that have so many bytes free, less what is kept in reserve."""

    def choose(*free, fine_tuning=None, **changes):
        path = small_egs.write_config(tmp_path / "c.toml", **changes)
        config = read_train_config(path)
        if fine_tuning:
            config = replace(config, fine_tuning=fine_tuning)
        plan = build_plan(config, 5)
        free = [bytes_ + memory.RESERVE_BYTES for bytes_ in free]
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free[0], 32e9))
        return memory.choose_checkpointing(
            plan, lambda: build(MODEL), FEATURES, device=CUDA, group=Cards(*free)
        )

    return choose


@pytest.fixture(scope="module")
def needed():
    """Bytes of a step of 4 crops of 60 frames (see small_egs) in each mode."""
    model = StepModel(lambda: build(MODEL), FEATURES)
    return [model.measure(60, 4, checkpointing=mode).total(4) for mode in MODES]


def test_auto_recomputes_as_little_as_fits(choose, needed):
    assert [choose(size) for size in needed] == list(MODES)
    assert [choose(0.99 * size) for size in needed[:2]] == list(MODES[1:])
    assert choose(needed[0], precision="fp16") == "none"
    assert choose(needed[1], precision="fp16") == "none"  # half the memory
    # An own choice is kept where it fits.
    assert choose(needed[0], checkpointing="full") == "full"
    # Of several cards the fullest decides; two have a micro-batch each, four have half of one.
    assert choose(needed[0], needed[1]) == "selective"
    assert choose(needed[0], needed[0]) == "none"
    assert choose(*[needed[0]] * 3, 0.75 * needed[2]) in MODES[1:]


def test_what_does_not_fit_is_refused_with_what_would(choose, needed):
    with pytest.raises(UsageError) as refused:
        choose(0.99 * needed[2])
    # A batch of 8 is not made of parts of 3.
    assert "set micro_batch_size = 2 or less (3 crops fit)" in str(refused.value)
    with pytest.raises(UsageError, match="checkpointing 'none'.*set checkpointing = auto"):
        choose(needed[1], checkpointing="none")
    with pytest.raises(UsageError, match="not one of 60 frames fits"):
        choose(1e5)
    longer = FineTuningConfig(num_epochs=1, crop_frames=150)
    with pytest.raises(UsageError, match=r"set fine_tuning\.micro_batch_size = 2 or") as refused:
        choose(1.05 * needed[0], fine_tuning=longer)
    assert " micro_batch_size" not in str(refused.value)


def test_a_cpu_keeps_all_and_a_training_says_what_it_kept(small_egs, tmp_path):
    for asked, kept in (("auto", "none"), ("selective", "selective")):
        run = train(small_egs, tmp_path / asked / MODEL, num_epochs=1, checkpointing=asked)
        assert f'checkpointing = "{kept}"' in (run.exp / "config.toml").read_text()
        assert json.loads((run.exp / "model.json").read_text())["checkpointing"] == kept
        assert [mark["checkpointing"] for mark in run.get_marks("plan")] == [kept]


def test_the_old_setting_is_refused_with_its_new_spelling(small_egs, tmp_path):
    for old, new in ((True, "full"), (False, "none")):
        path = small_egs.write_config(tmp_path / "c.toml")
        path.write_text(f"activation_checkpointing = {str(old).lower()}\n{path.read_text()}")
        with pytest.raises(UsageError, match=f"checkpointing = '{new}'"):
            read_train_config(path)
