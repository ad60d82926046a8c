"""What only a GPU can show, in three minutes: run it first on a new card.

Usage: tests/run.sh tests/gpu_smoke.py (without a GPU everything is skipped)

A step and an extraction in every number format that the card has against a CPU's, the order of
maps, what the host waits for, the memory of a step against what was computed, a resumed training, a
compiled step, exhausted memory, and two GPUs against one.
"""

import json
import warnings

import numpy as np
import pytest
import torch
from small_training import MODEL

from sv.errors import SvError, UsageError
from sv.kaldi.archive import write_archive
from sv.kaldi.data_dir import read_table
from sv.nnet.architectures import build_embedding_network
from sv.nnet.margin import MarginHead
from sv.nnet.memory import StepModel
from sv.nnet.recompute import MODES, set_checkpointing
from sv.train.config import read_train_config
from sv.train.device import choose_memory_format, explain_out_of_memory, set_precision
from sv.train.embed import embed_utterances
from sv.train.group import Group
from sv.train.step import TrainStep
from sv.train.store import load_checkpoint

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
# Least cosine between a GPU's result and the CPU's in fp32.
AGREES = {"fp32": 0.99999, "tf32": 0.999, "fp16": 0.98, "bf16": 0.98}


def require(precision):
    try:
        set_precision(precision, GPU)
    except UsageError as error:
        pytest.skip(str(error))


def build_step(small_egs, tmp_path, device, **changes):
    config = read_train_config(small_egs.write_config(tmp_path / "c.toml", **changes))
    torch.manual_seed(1)
    net = build_embedding_network("resnet50_d_1111", 21, 64, config.network)
    head = MarginHead(64, 12, 30.0)
    return TrainStep(net.to(device).train(), head.to(device), config, device, Group())


@pytest.fixture
def batch():
    """Made-up speakers, each with a spectrum of its own."""
    generator = torch.Generator().manual_seed(2)
    speakers = torch.randint(12, (8,), generator=generator)
    spectra = 2 * torch.randn(12, 1, 21, generator=generator)
    return torch.randn(8, 100, 21, generator=generator) + spectra[speakers], speakers


@pytest.mark.parametrize("precision", AGREES)
def test_gradients_are_those_of_a_cpu(small_egs, tmp_path, batch, precision):
    require(precision)
    found = []
    for device, kind in ((CPU, "fp32"), (GPU, precision)):
        step = build_step(small_egs, tmp_path, device, precision=kind)
        x, y = (tensor.to(device) for tensor in batch)
        loss, _ = step.compute_gradients(x, y, margin=0.2, micro_batch_size=4)
        step.scaler.unscale_(step.optimizer)
        gradients = [p.grad.flatten().cpu() for m in (step.net, step.head) for p in m.parameters()]
        found.append((loss.item(), torch.cat(gradients)))
    (expected_loss, expected), (loss, gradient) = found
    assert loss == pytest.approx(expected_loss, rel=1e-4 if precision == "fp32" else 0.02)
    assert torch.cosine_similarity(expected, gradient, dim=0) > AGREES[precision]
    weight = step.net.resnet.stages[0][0].conv1.weight
    assert weight.is_contiguous(memory_format=choose_memory_format(precision, GPU))
    assert step.optimizer.param_groups[0]["params"][0].dtype == torch.float32


@pytest.mark.parametrize("precision", AGREES)
def test_the_host_waits_in_a_step_only_where_torch_does(small_egs, tmp_path, batch, precision):
    require(precision)
    step = build_step(small_egs, tmp_path, GPU, precision=precision)
    x, y = (tensor.to(GPU) for tensor in batch)

    def count_waits(work):
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchroniz" in str(warning.message) for warning in caught)

    for first in (True, False):
        gradients = count_waits(
            lambda: step.compute_gradients(x, y, margin=0.2, micro_batch_size=4)
        )
        update = count_waits(lambda: step.update(0.1))
        # The first step allocates; the scaler reads whether a gradient is not finite.
        assert first or (gradients, update) == (0, int(precision == "fp16"))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("mode", MODES)
def test_a_step_takes_the_memory_that_was_computed(small_egs, tmp_path, precision, mode):
    """The peak of torch's allocator, which has the workspaces in it and the card's context not."""
    crops, frames, features = 16, 350, 81
    if torch.cuda.mem_get_info(GPU)[0] < 13e9:
        pytest.skip("needs 13 GB of the GPU")

    def build():
        return build_embedding_network("resnet50_d", features, 256), MarginHead(256, 5994, 30.0)

    before = torch.cuda.memory_allocated(GPU)
    config = read_train_config(small_egs.write_config(tmp_path / "c.toml", precision=precision))
    net, head = (module.to(GPU) for module in build())
    set_checkpointing(net, mode)
    step = TrainStep(net.train(), head, config, GPU, Group())
    x, y = torch.randn(crops, frames, features, device=GPU), torch.arange(crops, device=GPU)
    for _ in range(2):  # the momentum comes with the first
        torch.cuda.reset_peak_memory_stats(GPU)
        step.compute_gradients(x, y, margin=0.2, micro_batch_size=crops)
        step.update(0.1)
    taken = torch.cuda.max_memory_allocated(GPU) - before
    half = precision == "fp16"
    needed = StepModel(build, features).measure(frames, crops, checkpointing=mode, half=half)
    assert taken == pytest.approx(needed.total(crops), rel=0.15)


def test_a_compiled_step_is_that_of_a_cpu(small_egs, tmp_path, batch):
    losses = []
    for device, compiled in ((CPU, False), (GPU, True)):
        step = build_step(small_egs, tmp_path, device, compile=compiled)
        set_checkpointing(step.net, "selective")
        x, y = (tensor.to(device) for tensor in batch)
        losses.append(step.compute_gradients(x, y, margin=0.2, micro_batch_size=4)[0].item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize("precision", AGREES)
def test_a_resumed_training_goes_on(small_egs, tmp_path, run_cli, precision):
    """By the program: three steps, the rest, and a validation; the loss falls as a CPU's does."""
    require(precision)
    losses = []
    for ngpu, kind, pieces in ((0, "fp32", ([],)), (1, precision, (["--max-steps", 3], []))):
        exp = tmp_path / f"gpu{ngpu}" / MODEL
        exp.parent.mkdir()
        config = small_egs.write_config(exp.parent / "train.toml", precision=kind)
        for options in pieces:
            words = ["--model", MODEL, "--config", config, "--ngpu", ngpu, *options]
            run_cli("sv.bin.train", *words, small_egs.egs, exp, check=not options, timeout=200)
        epochs = json.loads((exp / "model.json").read_text())["epochs"]
        losses.append([row["loss"] for row in epochs[1:]])
    assert losses[1] == pytest.approx(losses[0], rel=0.1)
    state = load_checkpoint(exp / "final.pt")
    assert all(t.dtype in (torch.float32, torch.int64) for t in state["net"].values())


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_embeddings_are_those_of_a_cpu(tmp_path, precision):
    require(precision)
    rng = np.random.default_rng(0)
    frames = {f"u{i:02d}": int(n) for i, n in enumerate(rng.integers(80, 120, 30))}
    items = ((key, rng.normal(size=(n, 21)).astype(np.float32)) for key, n in frames.items())
    write_archive(tmp_path / "a.ark", tmp_path / "a.scp", items, method="two-byte")
    feats = read_table(tmp_path / "a.scp")
    torch.manual_seed(0)
    net = build_embedding_network("resnet50_d_1111", 21, 64)
    expected = dict(embed_utterances(net, feats, frames, device=CPU))
    net.to(GPU, memory_format=choose_memory_format(precision, GPU))
    options = {"device": GPU, "precision": precision, "batch_frames": 1000}
    found = dict(embed_utterances(net, feats, frames, **options))
    assert found.keys() == expected.keys()
    for key, embedding in found.items():
        a, b = embedding, expected[key]
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert cosine > (1 - 1e-6 if precision == "fp32" else 0.999)
        if precision == "fp32":  # TF32 would differ by 1e-3
            assert np.linalg.norm(a - b) / np.linalg.norm(b) < 1e-4


def test_exhausted_memory_is_one_line():
    with (
        pytest.raises(SvError, match=r"^out of GPU memory \(.*\d+ GB\); lower the batch$"),
        explain_out_of_memory(GPU, ["lower the batch"]),
    ):
        torch.empty(2**50, device=GPU)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU here")
def test_two_gpus_train_as_one(small_egs, tmp_path, run_cli):
    losses = []
    for ngpu in (1, 2):
        exp = tmp_path / f"gpu{ngpu}" / MODEL
        exp.parent.mkdir()
        config = small_egs.write_config(exp.parent / "train.toml")
        words = ["--model", MODEL, "--config", config, "--ngpu", ngpu, small_egs.egs, exp]
        run_cli("steps/train_xvector.sh", *words, timeout=200)
        epochs = json.loads((exp / "model.json").read_text())["epochs"]
        losses.append([row["loss"] for row in epochs[1:]])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
