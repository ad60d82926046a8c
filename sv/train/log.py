"""What a training reports while it runs: log lines, epochs.tsv, TensorBoard events, marks.

A figure of energy is left out wherever the energy is not known.
"""

import importlib.util
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sv.files import replacing
from sv.train.config import Plan
from sv.train.device import measure_memory_mb
from sv.train.stopping import Energy, EnergyReader
from sv.train.store import History

LOG_S = 60.0  # a progress line a minute
MIN_SPAN_S = 10.0  # for a J-per-crop figure: a sample's time is known to about a second
SEGMENTS = 8  # marks in a bounded run: enough to see how even its speed is
# The columns of epochs.tsv, in order; a column that no epoch has is left out.
COLUMNS = (
    "epoch", "loss", "accuracy_percent", "valid_eer_percent", "learning_rate", "margin",
    "crops_per_s", "wait_percent", "read_percent", "j_per_crop", "energy_measured_fraction",
    "train_s", "valid_s", "memory_mb", "gpu_memory_mb",
)  # fmt: skip


@dataclass
class Totals:
    """Sums over the steps of an epoch so far; energy is that of ``metered_crops`` of the crops.

    ``wait_s`` is how long the device waited for data, ``read_s`` how long the first process's
    threads read: near ``train_s`` the disk is what limits the training.
    """

    steps: int = 0
    crops: int = 0
    correct: int = 0
    loss: float = 0.0
    train_s: float = 0.0
    wait_s: float = 0.0
    read_s: float = 0.0
    energy_j: float = 0.0
    measured_j: float = 0.0
    metered_crops: int = 0

    def since(self, earlier: "Totals") -> "Totals":
        """Return the sums over what came after ``earlier``."""
        before = asdict(earlier)
        return Totals(**{key: value - before[key] for key, value in asdict(self).items()})

    def compute_figures(self) -> dict[str, float]:
        """Return loss, accuracy, speed, shares of time waiting for data and reading, J per crop."""
        figures = {
            "loss": self.loss / self.steps,
            "accuracy_percent": 100 * self.correct / self.crops,
            "crops_per_s": self.crops / self.train_s,
            "wait_percent": 100 * self.wait_s / self.train_s,
            "read_percent": 100 * self.read_s / self.train_s,
        }
        if self.metered_crops and self.energy_j > 0:
            figures["j_per_crop"] = self.energy_j / self.metered_crops
            figures["energy_measured_fraction"] = self.measured_j / self.energy_j
        return figures

    def format(self) -> str:
        """Return the figures as text for a log line."""
        figures = self.compute_figures()
        text = (
            f"loss {figures['loss']:.3f}, accuracy {figures['accuracy_percent']:.1f} %, "
            f"{figures['crops_per_s']:.1f} crops/s, waiting {figures['wait_percent']:.1f} %, "
            f"reading {figures['read_percent']:.1f} %"
        )
        if "j_per_crop" in figures:
            measured = figures["energy_measured_fraction"]
            kind = "estimated" if measured == 0 else f"{100 * measured:.0f} % measured"
            text += f", {figures['j_per_crop']:.3g} J/crop ({kind})"
        return text


def write_epoch_table(path: Path, history: History) -> None:
    """Write a line per epoch, tab separated; an unknown figure is an empty cell."""
    columns = [name for name in COLUMNS if any(name in row for row in history)]
    with replacing(path) as file:
        file.write("\t".join(columns) + "\n")
        for row in history:
            file.write("\t".join(f"{row[c]:.6g}" if c in row else "" for c in columns) + "\n")


class TrainingLog:
    """The log of one run.

    Energy is counted between `begin` and `end`, so that validations and checkpoints are left out.

    Args:
        exp_dir: Gets log/epochs.tsv and log/tensorboard/.
        plan: The settings of every step.
        device: Where the training computes.
        energy: Reads the energy of the attempt.
        mark: Called with a mark's name and fields.
        max_steps: Steps of a bounded run, else None.
        writes: Whether it writes files; of several processes one does.
    """

    def __init__(
        self,
        exp_dir: Path,
        plan: Plan,
        *,
        device: torch.device,
        energy: EnergyReader,
        mark: Callable[..., None],
        max_steps: int | None,
        writes: bool,
    ) -> None:
        self.exp_dir, self.plan, self.device, self._writes = exp_dir, plan, device, writes
        self._energy, self._mark = energy, mark
        self._metered: tuple[Energy | None, int] = (None, 0)  # the last reading, crops until then
        self._steps_per_segment = None if max_steps is None else max(1, max_steps // SEGMENTS)
        self._events: Any = None  # torch's SummaryWriter
        self._logged = self._marked = Totals()  # the totals at the last line, the last mark
        self._logged_at = 0.0
        self._phase = ""

    def open(self, step: int, history: History) -> None:
        """Start the log of a run that starts when ``step`` steps are done."""
        plan = self.plan
        self._mark(
            "plan",
            first_step=step,
            total_steps=plan.num_steps,
            steps_per_epoch=plan.steps_per_epoch,
            num_epochs=plan.num_epochs,
            crops_per_step=plan.config.optimizer.batch_size,
            crop_frames=plan.config.crop_frames,
            checkpointing=plan.config.checkpointing,
            fine_tuning_steps=sum(phase.steps for phase in plan.phases[1:]),
            fine_tuning_crop_frames=plan.config.fine_tuning.crop_frames,
        )
        if self._writes and importlib.util.find_spec("tensorboard") is None:
            logging.info("no TensorBoard events: the package tensorboard is not installed")
        elif self._writes:
            # Only now: the package is optional, and slow to import.
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

            # What an earlier run wrote at this step or later is void: it is computed again.
            self._events = SummaryWriter(self.exp_dir / "log" / "tensorboard", purge_step=step)
        if history and history[-1]["epoch"] * plan.steps_per_epoch == step:
            # Void with what came after the checkpoint, or never written; not computed again.
            self._write_events(step, "epoch", history[-1])

    def close(self) -> None:
        """Write what is left."""
        if self._events is not None:
            self._events.close()

    def flush(self) -> None:
        """Write the events to disk: a checkpoint must not be ahead of them."""
        if self._events is not None:
            self._events.flush()

    def _write_events(self, step: int, prefix: str, figures: Mapping[str, float]) -> None:
        if self._events is not None:
            for name, value in figures.items():
                if name != "epoch":
                    self._events.add_scalar(f"{prefix}/{name}", value, step)

    def mark_phase(self, step: int) -> None:
        """Mark the phase of a step, if it is not the one of the last call."""
        phase = self.plan.find_phase(step)
        if phase.name != self._phase:
            self._phase = phase.name
            self._mark("phase", name=phase.name)
            if len(self.plan.phases) > 1:
                logging.info("%s: crops of %d frames", phase.name, phase.crop_frames)

    def begin(self, totals: Totals) -> None:
        """Start to count energy, at the start or after a pause (a validation, a checkpoint)."""
        self._metered = self._energy.read(), totals.crops

    def end(self, totals: Totals) -> None:
        """Add the energy since `begin`, before a pause."""
        self._add_energy(totals)
        self._metered = None, 0

    def _add_energy(self, totals: Totals) -> None:
        """Add the energy since the last reading, if it is known and `MIN_SPAN_S` have passed."""
        (first, crops), last = self._metered, self._energy.read()
        if first is None or last is None or last.elapsed_s - first.elapsed_s < MIN_SPAN_S:
            return
        self._metered = last, totals.crops
        totals.energy_j += last.energy_j - first.energy_j
        totals.measured_j += last.measured_j - first.measured_j
        totals.metered_crops += totals.crops - crops

    def begin_epoch(self, totals: Totals) -> None:
        """Start an epoch, or the rest of one."""
        self._logged, self._marked = replace(totals), replace(totals)
        self._logged_at = time.monotonic()
        self.begin(totals)

    def mark_segment(self, totals: Totals, *, is_last: bool = False) -> None:
        """Mark what a bounded run has done since the last mark, if it is a whole segment."""
        part = totals.since(self._marked)
        if self._steps_per_segment is None or not part.steps:
            return
        if is_last or part.steps >= self._steps_per_segment:
            self._mark("stretch", steps=part.steps, crops=part.crops, seconds=part.train_s)
            self._marked = replace(totals)

    def is_line_due(self) -> bool:
        """Whether the last progress line is `LOG_S` old."""
        return time.monotonic() - self._logged_at >= LOG_S

    def log_progress(self, step: int, totals: Totals, history: History) -> None:
        """Log what came since the last line; ``step`` steps are done."""
        self._add_energy(totals)
        part, self._logged = totals.since(self._logged), replace(totals)
        self._logged_at = time.monotonic()
        rate, margin = self.plan.learning_rate(step - 1), self.plan.margin(step - 1)
        left_s = self._estimate_left_s(step, totals, history)
        logging.info(
            "epoch %d/%d, step %d/%d: %s, lr %.3g, margin %.3g, about %.0f minutes left, until %s",
            (step - 1) // self.plan.steps_per_epoch + 1, self.plan.num_epochs,
            (step - 1) % self.plan.steps_per_epoch + 1, self.plan.steps_per_epoch,
            part.format(), rate, margin, left_s / 60,
            time.strftime("%F %R", time.localtime(time.time() + left_s)),
        )  # fmt: skip
        figures = {**part.compute_figures(), "learning_rate": rate, "margin": margin}
        # At the number of the last step, from 0: a checkpoint at `step` is after it.
        self._write_events(step - 1, "train", figures)

    def _estimate_left_s(self, step: int, totals: Totals, history: History) -> float:
        """Seconds of the remaining steps, by the frames in their crops, and validations."""
        frames = sum(
            (p.first_step + p.steps - max(step, p.first_step)) * p.crop_frames
            for p in self.plan.phases
            if p.first_step + p.steps > step
        )
        epochs = self.plan.num_epochs - (step - 1) // self.plan.steps_per_epoch
        per_frame_s = totals.train_s / totals.steps / self.plan.find_phase(step - 1).crop_frames
        return frames * per_frame_s + epochs * history[-1].get("valid_s", 0.0)

    def describe_untrained(self, eer_percent: float, valid_s: float) -> dict[str, float]:
        """Log and return the row of epoch 0, the untrained network."""
        row = {"epoch": 0, "valid_eer_percent": eer_percent, "valid_s": valid_s}
        logging.info("untrained: valid EER %.2f %%", eer_percent)
        self._write_events(0, "epoch", row)
        return row

    def describe_epoch(
        self, step: int, totals: Totals, eer_percent: float, valid_s: float
    ) -> dict[str, float]:
        """Return the row of the epoch that ends when ``step`` steps are done."""
        return {
            "epoch": step // self.plan.steps_per_epoch,
            "valid_eer_percent": eer_percent,
            "learning_rate": self.plan.learning_rate(step - 1),
            "margin": self.plan.margin(step - 1),
            "train_s": totals.train_s,
            "valid_s": valid_s,
            **totals.compute_figures(),
            **measure_memory_mb(self.device),
        }

    def finish_epoch(self, step: int, totals: Totals, history: History) -> None:
        """Log the epoch whose row is the last of ``history``; its checkpoint is saved."""
        row = history[-1]
        logging.info(
            "epoch %d/%d done: %s, valid EER %.2f %%, lr %.3g, margin %.3g, memory %.0f MB",
            row["epoch"], self.plan.num_epochs, totals.format(), row["valid_eer_percent"],
            row["learning_rate"], row["margin"], row.get("gpu_memory_mb", row["memory_mb"]),
        )  # fmt: skip
        if self._writes:
            write_epoch_table(self.exp_dir / "log" / "epochs.tsv", history)
        self._write_events(step, "epoch", row)
        self.flush()
        self._mark("epoch", epoch=row["epoch"], valid_eer_percent=row["valid_eer_percent"])
