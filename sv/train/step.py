"""One optimisation step: number format, gradients from micro-batches, update, memory."""

import contextlib
import resource
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from sv.errors import SvError, UsageError
from sv.train.config import OptimizerConfig, TrainConfig
from sv.train.group import Group

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Half precision's gradients vanish below a scale of about 1; far below it every step was skipped
# because its gradients were not finite, and no smaller scale will help.
MIN_SCALE = 2.0**-10
STATE = ("net", "head", "optimizer", "scaler")  # of a `TrainStep`, in a checkpoint
# In the messages of torch's CPU allocator and oneDNN; both raise a plain RuntimeError.
CPU_MESSAGES = ("can't allocate memory", "could not create a memory", "bad_alloc")


def set_precision(precision: str, device: torch.device) -> None:
    """Set the 32-bit arithmetic of this process to that of ``precision``.

    Only ``tf32`` rounds the factors of 32-bit products: cuDNN would do so by default, and then a
    run called fp32 would not be one.

    Raises:
        UsageError: The device does not have it.
    """
    if precision == "tf32" and device.type != "cuda":
        raise UsageError(
            "precision 'tf32' needs a GPU; set fp32 or bf16 in train.toml, or --ngpu 1"
        )
    if device.type != "cuda":
        return
    capability = torch.cuda.get_device_capability(device)
    # Ampere is the first with either (NVIDIA, CUDA C programming guide, compute capabilities).
    if precision in ("tf32", "bf16") and capability < (8, 0):
        name = torch.cuda.get_device_name(device)
        raise UsageError(f"precision '{precision}': not on {name}; set fp16 or fp32 in train.toml")
    # The older of torch's two interfaces: once the newer one is used, code that reads the older
    # one (the compiler, for example) fails (torch 2.13).
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """Return the context in which a network computes in ``precision``."""
    if precision not in AUTOCAST:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=AUTOCAST[precision])


class _Joint(nn.Module):
    """Network and head as one model, whose gradients several processes exchange."""

    def __init__(self, net: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.net, self.head = net, head

    def forward(self, crops: Tensor, speakers: Tensor, margin: float) -> tuple[Tensor, Tensor]:
        return self.head(self.net(crops), speakers, margin)


class TrainStep:
    """The network, its head and their optimiser.

    Args:
        net: Embedding network, on ``device``.
        head: Training head, on ``device``.
        config: Resolved conf/train.toml.
        device: Where to compute.
        group: The processes that train together.

    Raises:
        UsageError: The device does not have the config's precision.
    """

    def __init__(
        self,
        net: nn.Module,
        head: nn.Module,
        config: TrainConfig,
        device: torch.device,
        group: Group,
    ) -> None:
        set_precision(config.precision, device)
        self.net, self.head, self.device, self.precision = net, head, device, config.precision
        self.group, self.model = group, group.prepare(_Joint(net, head))
        self.optimizer = build_optimizer(net, head, config.optimizer)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")

    def compute_gradients(
        self, crops: Tensor, speakers: Tensor, *, margin: float, micro_batch_size: int
    ) -> tuple[Tensor, Tensor]:
        """Compute the gradients of a batch; a collective call: every process makes it.

        Args:
            crops: This process's crops, (B, frames, features) float32 on the device.
            speakers: (B,) int64 on the device.
            margin: Margin of this step.
            micro_batch_size: Crops of this process at once; divides B.

        Returns:
            Mean loss and number of correct answers over this process's crops, scalars on the
            device: reading them here would make the device wait for the host.
        """
        self.optimizer.zero_grad()
        parts = len(speakers) // micro_batch_size
        loss_sum = torch.zeros((), dtype=torch.double, device=self.device)
        correct_sum = torch.zeros((), dtype=torch.int64, device=self.device)
        micro_batches = zip(crops.chunk(parts), speakers.chunk(parts), strict=True)
        for number, (x, y) in enumerate(micro_batches, 1):
            with self.group.exchange(self.model, number == parts):
                with autocast(self.precision, self.device):
                    loss, correct = self.model(x, y, margin)
                self.scaler.scale(loss / parts).backward()
            loss_sum += loss.detach() / parts
            correct_sum += correct
        return loss_sum, correct_sum

    def update(self, rate: float) -> None:
        """Update the weights; in fp16 a gradient that is not finite lowers the scale instead."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def is_finite(self) -> bool:
        """Whether the weights are worth keeping; waits for the device."""
        tensors = (*self.net.state_dict().values(), *self.head.state_dict().values())
        finite = torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all()
        return bool(finite) and self.scaler.get_scale() > MIN_SCALE  # 1 but in fp16

    def state_dict(self) -> dict[str, object]:
        """Return everything that the next step depends on, the data excepted."""
        return {name: getattr(self, name).state_dict() for name in STATE}

    def load_state_dict(self, state: dict) -> None:
        """Resume from what `state_dict` returned."""
        for name in STATE:
            getattr(self, name).load_state_dict(state[name])


def build_optimizer(
    net: nn.Module, head: nn.Module, config: OptimizerConfig
) -> torch.optim.Optimizer:
    """Build the optimiser: weight decay on the embedding network, not on the head."""
    return torch.optim.SGD(
        [
            {"params": net.parameters(), "weight_decay": config.weight_decay},
            {"params": head.parameters(), "weight_decay": 0.0},
        ],
        lr=config.initial_lr,
        momentum=config.momentum,
    )


def measure_memory_mb(device: torch.device) -> dict[str, float]:
    """Return this process's peak memory in MiB: of the machine and, if used, of the GPU."""
    peaks = {"memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    if device.type == "cuda":
        peaks["gpu_memory_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    return peaks


@contextlib.contextmanager
def explain_out_of_memory(config: TrainConfig) -> Iterator[None]:
    """Turn every error that means "out of memory" into one line that says what to lower.

    Raises:
        SvError: Memory of the GPU or of the machine is exhausted.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):  # a RuntimeError
            where = "GPU memory"
        elif isinstance(error, MemoryError) or any(text in str(error) for text in CPU_MESSAGES):
            where = "memory"
        else:
            raise
        ways = []
        if config.optimizer.micro_batch_size > 1:
            # The batch stays: it is accumulated from more parts.
            ways.append(f"lower micro_batch_size ({config.optimizer.micro_batch_size})")
        if config.fine_tuning.num_epochs:
            ways.append("lower fine_tuning.micro_batch_size")
        if not config.activation_checkpointing:
            ways.append("set activation_checkpointing = true")
        if config.precision in ("fp32", "tf32"):
            ways.append("set precision = 'bf16'")
        ways.append(f"shorten crop_frames ({config.crop_frames})")
        raise SvError(f"out of {where}; in train.toml {', or '.join(ways)}") from error
