"""Devices on made-up cards: which are refused, in what arithmetic, and what is said of memory."""

from types import SimpleNamespace

import pytest
import torch

from sv.bin import embed, extract
from sv.errors import SvError, UsageError
from sv.train import device as module
from sv.train.config import read_train_config, validate_device
from sv.train.device import (
    check_gpus,
    choose_memory_format,
    explain_out_of_memory,
    list_savings,
    set_precision,
)

CUDA = torch.device("cuda")
CU126 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
CU130 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]
NVRM = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n"


@pytest.fixture
def card(monkeypatch, tmp_path):
    """Put cards into the machine: their capability, and the kernels that torch was built with."""

    def put(capability=(7, 0), built=CU130, *, count=1, cuda="13.0", nodes=True):
        if nodes:
            (tmp_path / "nvidia0").touch()
        (tmp_path / "version").write_text(NVRM)
        monkeypatch.setattr(module, "DEVICES", str(tmp_path / "nvidia[0-9]*"))
        monkeypatch.setattr(module, "DRIVER", str(tmp_path / "version"))
        monkeypatch.setattr(torch.version, "cuda", cuda)
        cuda = torch.cuda
        monkeypatch.setattr(cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(cuda, "device_count", lambda: count)
        monkeypatch.setattr(cuda, "get_arch_list", lambda: built)
        monkeypatch.setattr(cuda, "get_device_capability", lambda *_: capability)
        monkeypatch.setattr(cuda, "get_device_name", lambda *_: "Tesla V100")
        memory = SimpleNamespace(total_memory=34_089_730_048)
        monkeypatch.setattr(cuda, "get_device_properties", lambda *_: memory)

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return put


@pytest.mark.parametrize(
    ("capability", "built", "runs"),
    [
        ((7, 0), CU130, False),
        ((7, 0), CU126, True),
        ((7, 5), CU130, True),
        ((8, 9), CU130, True),  # as sm_86
        ((9, 0), CU126, True),
        ((10, 0), CU126, False),
        ((12, 1), CU130, True),
        ((13, 0), CU130, True),  # compiled by the driver from compute_120
        ((7, 0), ["sm_72"], False),  # of the same major version, but later
        ((7, 0), ["gfx90a"], True),  # another maker's: nothing is known
        ((7, 0), [], True),
        ((10, 3), ["sm_100a", "sm_90a"], True),
    ],
)
def test_a_card_without_kernels_is_refused(card, capability, built, runs):
    card(capability, built)
    if runs:
        check_gpus(1)
        return
    with pytest.raises(UsageError) as raised:
        check_gpus(1)
    said = str(raised.value)
    assert f"Tesla V100 has compute capability {capability[0]}.{capability[1]}" in said
    assert built[0] in said and "13.0" in said and "--cuda auto" in said and "\n" not in said


def test_the_cause_of_no_gpu_is_named(card, monkeypatch):
    def refuse(**changes):
        card(count=0, **changes)
        with pytest.raises(UsageError) as raised:
            check_gpus(2)
        said = str(raised.value)
        assert said.startswith("--ngpu 2: ") and "\n" not in said
        assert "--ngpu 0" not in said  # hours would become months
        return said

    said = refuse()
    assert "CUDA 13.0" in said and "driver 535.104.05" in said and "--cuda auto" in said
    assert "without CUDA" in refuse(cuda=None) and "--cuda auto" in refuse(cuda=None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES=''" in refuse()


def test_a_machine_without_gpus_and_one_with_too_few(card):
    card(count=0, nodes=False)
    with pytest.raises(UsageError, match="--ngpu 1: torch sees no GPU here: .* none"):
        check_gpus(1)
    card(count=2)
    with pytest.raises(UsageError, match="--ngpu 4: torch sees 2 GPUs here; give --ngpu 2"):
        check_gpus(4)


@pytest.mark.parametrize("precision", ["fp16", "tf32"])
def test_a_training_that_needs_a_gpu_is_not_begun_without(precision):
    with pytest.raises(UsageError, match=f"'{precision}' needs a GPU; .*--ngpu 1"):
        validate_device(precision, 0)
    validate_device(precision, 1)
    for other in ("fp32", "bf16"):
        validate_device(other, 0)


@pytest.mark.parametrize(
    ("precision", "device", "channels_last"),
    [
        ("fp32", "cpu", True), ("bf16", "cpu", True), ("fp32", "cuda", False),
        ("tf32", "cuda", True), ("fp16", "cuda", True), ("bf16", "cuda", True),
    ],
)  # fmt: skip
def test_channels_are_last_where_it_is_faster(precision, device, channels_last):
    chosen = choose_memory_format(precision, torch.device(device))
    assert (chosen == torch.channels_last) == channels_last


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_extraction_never_rounds_products(card, run_extraction, precision):
    """cuDNN rounds by itself unless it is told not to."""
    card((8, 0))
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    with pytest.raises(SvError, match="model: No such file"):
        run_extraction(precision)
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    card((7, 0), CU126)
    if precision == "bf16":
        with pytest.raises(UsageError, match="'bf16': not on Tesla V100; set fp16 or fp32"):
            run_extraction(precision)


@pytest.mark.parametrize("program", [embed, extract])
def test_a_network_without_memory_is_one_line(card, run_extraction, monkeypatch, program):
    def exhaust(*_, **__):
        raise RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA")

    card((7, 0), CU126)
    monkeypatch.setattr(program, program.__name__.rpartition(".")[2], exhaust)
    for precision, advised in (("fp32", True), ("fp16", False)):
        with pytest.raises(SvError, match=r"^out of GPU memory \(Tesla V100, 34 GB\); ") as raised:
            run_extraction(precision, program)
        assert ("--precision fp16" in str(raised.value)) == advised


@pytest.fixture
def run_extraction(monkeypatch, tmp_path):
    """Run sv.bin.extract (or embed) on a made-up card, up to the loading of the network."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    threads = torch.get_num_threads()

    def run(precision, program=extract):
        names = ("model", "feats", "utt2num_frames", "ark", "scp", "info")
        words = [str(tmp_path / name) for name in names]
        program.main(["--precision", precision, "--ngpu", "1", *words])

    yield run
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "FIND was unable to find an engine to execute this computation",
        "GET was unable to find an engine to execute this computation",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "Triton Error [CUDA]: out of memory",
        "NCCL error: unhandled cuda error, Cuda failure 2 'out of memory'",
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    ],
)
@pytest.mark.parametrize("half", ["fp16", "bf16"])
def test_every_form_of_no_memory_says_what_helps_on_this_card(
    card, small_egs, tmp_path, message, half
):
    card((7, 0) if half == "fp16" else (9, 0))
    config = read_train_config(small_egs.write_config(tmp_path / "c.toml"))
    error = message if isinstance(message, Exception) else RuntimeError(message)
    with pytest.raises(SvError) as raised, explain_out_of_memory(CUDA, list_savings(config, CUDA)):
        raise error
    said = str(raised.value)
    assert said.startswith("out of GPU memory (Tesla V100, 34 GB")
    assert "in train.toml lower micro_batch_size" in said
    assert f"precision = '{half}'" in said and "\n" not in said


def test_precisions_of_training_on_a_gpu(card):
    card((7, 5))
    for precision in ("bf16", "tf32"):
        with pytest.raises(UsageError, match=f"'{precision}': not on Tesla V100; set fp16"):
            set_precision(precision, CUDA)
