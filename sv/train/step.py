"""One optimisation step: gradients from micro-batches, update.

On a GPU the host waits for the device in two places of a step, both torch's: `GradScaler.step` in
fp16 reads whether a gradient is not finite (SGD's ``fused`` would not, but counts a skipped step in
its momentum: torch 2.11), and SyncBatchNorm, of processes that share a micro-batch, how many values
they have (torch/nn/modules/_functions.py). `AsyncMetrics` waits for the step before, when this one
is queued. Between steps a line of the log, a checkpoint and a validation wait: they read results.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from sv.errors import UsageError
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


class _RunningStatistics:
    """Collects the statistics of a step's micro-batches and applies them in their order.

    With momentum 1 the running statistics of a normalisation are those of its last batch. They are
    read after each micro-batch, gathered from all processes once a step, and applied by all: the
    same arithmetic for any number of processes.

    Args:
        net: Whose normalisations get momentum 1; their tensors must stay the same objects.
    """

    def __init__(self, net: nn.Module) -> None:
        norms = [m for m in net.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        pairs = [
            (t, norm.momentum) for norm in norms for t in (norm.running_mean, norm.running_var)
        ]
        self._running = [tensor for tensor, _ in pairs]
        self._counts = [norm.num_batches_tracked for norm in norms]
        self._momenta = [torch.full_like(tensor, momentum) for tensor, momentum in pairs]
        for norm in norms:
            norm.momentum = 1.0

    @contextlib.contextmanager
    def collected(self, micro_batches: int, group: Group) -> Iterator[Callable[[int], None]]:
        """Yield what is called with the number of each micro-batch when it has been computed.

        A collective call. After an error the running statistics are those of the last step.
        """
        if not self._running:  # a network without such normalisations
            yield lambda number: None
            return
        running, counts = torch.cat(self._running), torch.stack(self._counts)
        found = running.new_zeros(micro_batches, len(running))

        def collect(number: int) -> None:
            torch.cat(self._running, out=found[number])

        try:
            yield collect
            momenta = torch.cat(self._momenta)
            for statistics in group.total(found):  # zeros where another process has computed it
                running.lerp_(statistics, momenta)
            counts += micro_batches
        finally:
            torch._foreach_copy_(self._running, running.split([len(t) for t in self._running]))
            torch._foreach_copy_(self._counts, counts.unbind())


def _refuse_random(net: nn.Module) -> None:
    """Check that the network computes the same each time.

    Raises:
        UsageError: It does not: a resumed or recomputed step would be another one.
    """
    for name, module in net.named_modules():
        if isinstance(module, _DropoutNd) and module.p > 0:
            raise UsageError(
                f"the network's {name} is a dropout: steps must be repeatable, and nothing in a "
                "network may be random (docs/adding-a-model.md)"
            )
        if isinstance(module, _BatchNorm) and module.track_running_stats and not module.momentum:
            raise UsageError(f"the network's {name} needs a momentum, such as 0.1")


class TrainStep:
    """The network, its head and their optimiser.

    Args:
        net: Embedding network, on ``device``.
        head: Training head, on ``device``.
        config: Resolved conf/train.toml.
        device: Where to compute.
        group: The processes that train together.

    Raises:
        UsageError: The device does not have the config's precision, or the network is random.
    """

    def __init__(
        self,
        net: nn.Module,
        head: nn.Module,
        config: TrainConfig,
        device: torch.device,
        group: Group,
    ) -> None:
        _refuse_random(net)
        set_precision(config.precision, device)
        if device.type == "cuda":
            # Not on a CPU: there torch sums the variance of a channels-last batch too roughly
            # (tests/bench/train_step.py).
            net.to(memory_format=choose_memory_format(config.precision, device))
        self.net, self.head, self.device, self.precision = net, head, device, config.precision
        self._statistics = _RunningStatistics(net)
        joint = _Joint(net, head, compiled=config.compile)
        self.group, self.model = group, group.prepare(joint)
        self.optimizer = build_optimizer(net, head, config.optimizer)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")

    def compute_gradients(
        self,
        crops: Tensor,
        speakers: Tensor,
        *,
        margin: float,
        micro_batch_size: int,
        batch_size: int | None = None,
        look: Callable[[], None] = lambda: None,
    ) -> tuple[Tensor, Tensor]:
        """Compute the gradients of a batch; a collective call: every process makes it.

        Args:
            crops: This process's crops, (B, frames, features) float32 on the device: its share of
                the batch (`sv.data.loader.find_share`).
            speakers: (B,) int64 on the device.
            margin: Margin of this step.
            micro_batch_size: Crops that are normalised together.
            batch_size: Crops of all processes together; None: this one has all.
            look: Called before each micro-batch; what it raises drops the batch.

        Returns:
            What this process adds to the batch's mean loss and to the number of correct answers,
            scalars on the device: reading them here would make the device wait for the host.
        """
        batch_size, size = batch_size or len(speakers), self.group.size
        share = self.group.divide(self.model, batch_size, micro_batch_size)
        first = share.rows.start // micro_batch_size
        parts = crops.split(micro_batch_size), speakers.split(micro_batch_size)
        micro_batches = batch_size // micro_batch_size
        rounds = -(-micro_batches // min(micro_batches, size))  # the most that a process computes
        self.optimizer.zero_grad()
        loss_sum = torch.zeros((), dtype=torch.double, device=self.device)
        correct_sum = torch.zeros((), dtype=torch.int64, device=self.device)
        with self._statistics.collected(micro_batches, self.group) as collect:
            for _ in range(rounds - len(parts[0])):  # others compute one more
                look()
            for number, (x, y) in enumerate(zip(*parts, strict=True), 1):
                look()
                weight = len(y) / batch_size
                with self.group.exchange(self.model, number == len(parts[0])):
                    with autocast(self.precision, self.device):
                        loss, correct = self.model(x, y, margin)
                    # Times size, because the exchange takes the mean over the processes.
                    self.scaler.scale(loss * (weight * size)).backward()
                if self.group.rank == share.sharers.start:
                    collect(first + number - 1)
                loss_sum += loss.detach() * weight
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
