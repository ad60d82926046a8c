"""One optimisation step: gradients accumulated from micro-batches, then the update."""

import contextlib

import torch
from torch import Tensor, nn

from sv.train.config import OptimizerConfig, TrainConfig
from sv.train.group import Group
from sv.train.precision import autocast, set_precision

# Half precision's gradients vanish below a scale of about 1; far below it every step was skipped
# because its gradients were not finite, and no smaller scale will help.
MIN_SCALE = 2.0**-10


class Joint(nn.Module):
    """Network and head as one model, whose gradients several processes exchange."""

    def __init__(self, net: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.net, self.head = net, head

    def forward(self, crops: Tensor, speakers: Tensor, margin: float) -> tuple[Tensor, Tensor]:
        """Compute the loss and the number of right answers, as `sv.nnet.margin.MarginHead`."""
        return self.head(self.net(crops), speakers, margin)


class Stepper:
    """The network, its head and their optimiser.

    Args:
        net: Embedding network, on ``device``.
        head: Training head, on ``device``.
        config: Resolved conf/train.toml.
        device: Where to compute.
        group: The processes that train it together.

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
        self.group, self.model = group, group.prepare(Joint(net, head))
        self.optimizer = build_optimizer(net, head, config.optimizer)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")

    def compute_gradients(
        self, crops: Tensor, speakers: Tensor, *, margin: float, micro_batch_size: int
    ) -> tuple[Tensor, Tensor]:
        """Compute the gradients of a batch; every process must come here.

        Args:
            crops: (B, frames, features) float32 on the device, those of this process.
            speakers: (B,) int64 on the device.
            margin: Of this step.
            micro_batch_size: Crops of this process at once; divides B.

        Returns:
            Mean loss and number of right answers of this process's crops, scalars on the device:
            reading them here would make the device wait for the host.
        """
        self.optimizer.zero_grad()
        parts = len(speakers) // micro_batch_size
        loss_sum = torch.zeros((), dtype=torch.double, device=self.device)
        correct_sum = torch.zeros((), dtype=torch.int64, device=self.device)
        more = parts
        for x, y in zip(crops.chunk(parts), speakers.chunk(parts), strict=True):
            more -= 1
            with self.group.accumulate(self.model) if more else contextlib.nullcontext():
                with autocast(self.precision, self.device):
                    loss, correct = self.model(x, y, margin)
                self.scaler.scale(loss / parts).backward()
            loss_sum += loss.detach() / parts
            correct_sum += correct
        return loss_sum, correct_sum

    def update(self, rate: float) -> None:
        """Move the weights; in fp16 not where a gradient is not finite, and then scale it less."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def is_finite(self) -> bool:
        """Whether the weights are worth keeping; waits for the device."""
        tensors = [
            tensor
            for module in (self.net, self.head)
            for tensor in module.state_dict().values()
            if tensor.is_floating_point()
        ]
        finite = torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all()
        scaled = self.scaler.is_enabled()
        return bool(finite) and (not scaled or self.scaler.get_scale() > MIN_SCALE)

    def state_dict(self) -> dict[str, object]:
        """Give all that the next step depends on, the data aside."""
        return {
            "net": self.net.state_dict(),
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from what `state_dict` gave."""
        self.net.load_state_dict(state["net"])
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])


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
