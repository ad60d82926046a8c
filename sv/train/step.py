"""One optimisation step: gradients from micro-batches, update.

On a GPU the host waits for the device in two places of a step, both torch's: `GradScaler.step` in
fp16 reads whether a gradient is not finite (SGD's ``fused`` would not, but counts a skipped step in
its momentum: torch 2.11), and SyncBatchNorm, of several processes, how many values they have
(torch/nn/modules/_functions.py). `AsyncMetrics` waits for the step before, when this one is queued.
"""

import torch
from torch import Tensor, nn

from sv.train.config import OptimizerConfig, TrainConfig
from sv.train.device import autocast, choose_memory_format, set_precision
from sv.train.group import Group

# Half precision's gradients vanish below a scale of about 1; far below it every step was skipped
# because its gradients were not finite, and no smaller scale will help.
MIN_SCALE = 2.0**-10
STATE = ("net", "head", "optimizer", "scaler")  # of a `TrainStep`, in a checkpoint


class _Joint(nn.Module):
    """Network and head as one model, whose gradients several processes exchange."""

    def __init__(self, net: nn.Module, head: nn.Module, *, compiled: bool) -> None:
        super().__init__()
        self.net, self.head = net, head
        # Not of the module itself: in a validation each batch has a shape of its own, and a
        # compilation takes minutes.
        self.embed = torch.compile(net.forward, dynamic=False) if compiled else net.forward

    def forward(self, crops: Tensor, speakers: Tensor, margin: float) -> tuple[Tensor, Tensor]:
        return self.head(self.embed(crops), speakers, margin)


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
        if device.type == "cuda":
            # Not on a CPU: there torch sums the variance of a channels-last batch too roughly
            # (tests/bench/train_step.py).
            net.to(memory_format=choose_memory_format(config.precision, device))
        self.net, self.head, self.device, self.precision = net, head, device, config.precision
        joint = _Joint(net, head, compiled=config.compile)
        self.group, self.model = group, group.prepare(joint)
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
