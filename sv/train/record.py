"""What a training says while it runs: log lines, epochs.tsv, TensorBoard events, marks."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from sv.train.events import Events
from sv.train.gauge import EnergyGauge
from sv.train.memory import measure_memory_mb
from sv.train.plan import Plan
from sv.train.progress import Tally, write_epoch_table

LOG_S = 60.0  # a progress line a minute
STRETCHES = 8  # marks in a bounded run: enough to see how evenly it runs

History = list[dict[str, float]]


class Record:
    """The record of one run.

    Args:
        exp_dir: Gets log/epochs.tsv and log/tensorboard/.
        plan: What is done at each step.
        device: Where it is computed.
        gauge: Tells the energy.
        mark: Called with a mark's name and fields.
        max_steps: Of a bounded run, else None.
        writes: Whether it writes files; of several processes one does.
    """

    def __init__(
        self,
        exp_dir: Path,
        plan: Plan,
        *,
        device: torch.device,
        gauge: EnergyGauge,
        mark: Callable[..., None],
        max_steps: int | None,
        writes: bool,
    ) -> None:
        self.exp_dir, self.plan, self.device, self._writes = exp_dir, plan, device, writes
        self._gauge, self._mark = gauge, mark
        self._steps_per_stretch = None if max_steps is None else max(1, max_steps // STRETCHES)
        self._events: Events | None = None
        self._logged = self._stretch = Tally()  # the sums at the last line, the last mark
        self._logged_at = 0.0
        self._phase = ""

    def open(self, step: int, history: History) -> None:
        """Begin the record of a run that begins when ``step`` steps are done."""
        plan, phases = self.plan, self.plan.phases
        self._mark(
            "plan",
            first_step=step,
            total_steps=plan.num_steps,
            steps_per_epoch=plan.steps_per_epoch,
            num_epochs=plan.num_epochs,
            crops_per_step=plan.config.optimizer.batch_size,
            fine_tuning_steps=sum(phase.steps for phase in phases[1:]),
        )
        if self._writes:
            self._events = Events(self.exp_dir / "log" / "tensorboard", step)
        if history and history[-1]["epoch"] * plan.steps_per_epoch == step:
            # Void with what came after the checkpoint, or never written; not computed again.
            self._write_epoch_events(step, history[-1])

    def close(self) -> None:
        """End it."""
        if self._events is not None:
            self._events.close()

    def flush(self) -> None:
        """Bring all that was said to disk, at a checkpoint."""
        if self._events is not None:
            self._events.flush()

    def mark_phase(self, step: int) -> None:
        """Mark the phase of a step, if it is another than before."""
        phase = self.plan.find_phase(step)
        if phase.name != self._phase:
            self._phase = phase.name
            self._mark("phase", name=phase.name)
            if len(self.plan.phases) > 1:
                logging.info("%s: crops of %d frames", phase.name, phase.crop_frames)

    def begin(self, tally: Tally) -> None:
        """Begin a stretch of steps, after a pause (a validation, a checkpoint) or at the start."""
        self._gauge.begin(tally.crops)

    def end(self, tally: Tally) -> None:
        """End a stretch of steps before a pause."""
        tally.add_energy(self._gauge.end(tally.crops))

    def begin_epoch(self, tally: Tally) -> None:
        """Begin an epoch, or the rest of one."""
        self._logged, self._stretch, self._logged_at = replace(tally), replace(tally), _now()
        self.begin(tally)

    def mark_stretch(self, tally: Tally, *, is_last: bool = False) -> None:
        """Mark what a bounded run has done since the last mark, if it is enough."""
        part = tally.since(self._stretch)
        if self._steps_per_stretch is None or not part.steps:
            return
        if is_last or part.steps >= self._steps_per_stretch:
            self._mark("stretch", steps=part.steps, crops=part.crops, seconds=part.train_s)
            self._stretch = replace(tally)

    def is_line_due(self) -> bool:
        """Whether the last line was a minute ago."""
        return _now() - self._logged_at >= LOG_S

    def log_progress(self, step: int, tally: Tally, history: History) -> None:
        """Log what came since the last line; ``step`` steps are done."""
        tally.add_energy(self._gauge.take(tally.crops))
        part, self._logged, self._logged_at = tally.since(self._logged), replace(tally), _now()
        rate, margin = self.plan.learning_rate(step - 1), self.plan.margin(step - 1)
        left_s = self._estimate_left_s(step, tally, history)
        logging.info(
            "epoch %d/%d, step %d/%d: %s, lr %.3g, margin %.3g, about %.0f minutes left, until %s",
            (step - 1) // self.plan.steps_per_epoch + 1, self.plan.num_epochs,
            (step - 1) % self.plan.steps_per_epoch + 1, self.plan.steps_per_epoch,
            part.describe(), rate, margin, left_s / 60,
            time.strftime("%F %R", time.localtime(time.time() + left_s)),
        )  # fmt: skip
        if self._events is not None:
            figures = {**part.compute_figures(), "learning_rate": rate, "margin": margin}
            # By the number of the last step, from 0: a checkpoint at `step` has it behind it.
            self._events.write(step - 1, figures, "train")

    def _estimate_left_s(self, step: int, tally: Tally, history: History) -> float:
        """Seconds of the steps that are left, by the frames in their crops, and validations."""
        now = self.plan.find_phase(step - 1)
        frames = sum(
            (p.first_step + p.steps - max(step, p.first_step)) * p.crop_frames
            for p in self.plan.phases
            if p.first_step + p.steps > step
        )
        epochs = self.plan.num_epochs - (step - 1) // self.plan.steps_per_epoch
        per_frame_s = tally.train_s / tally.steps / now.crop_frames
        return frames * per_frame_s + epochs * history[-1].get("valid_s", 0.0)

    def describe_untrained(self, eer_percent: float, valid_s: float) -> dict[str, float]:
        """Log and give the row of epoch 0, the untrained network."""
        row = {"epoch": 0, "valid_eer_percent": eer_percent, "valid_s": valid_s}
        logging.info("untrained: valid EER %.2f %%", eer_percent)
        self._write_epoch_events(0, row)
        return row

    def describe_epoch(self, step: int, tally: Tally, eer_percent: float, valid_s: float) -> dict:
        """Give the row of the epoch that ended with step ``step``."""
        return {
            "epoch": step // self.plan.steps_per_epoch,
            "valid_eer_percent": eer_percent,
            "learning_rate": self.plan.learning_rate(step - 1),
            "margin": self.plan.margin(step - 1),
            "train_s": tally.train_s,
            "valid_s": valid_s,
            **tally.compute_figures(),
            **measure_memory_mb(self.device),
        }

    def finish_epoch(self, step: int, tally: Tally, history: History) -> None:
        """Log the epoch whose row is the last of ``history``; its checkpoint is saved."""
        row = history[-1]
        logging.info(
            "epoch %d/%d done: %s, valid EER %.2f %%, lr %.3g, margin %.3g, memory %.0f MB",
            row["epoch"], self.plan.num_epochs, tally.describe(), row["valid_eer_percent"],
            row["learning_rate"], row["margin"], row.get("gpu_memory_mb", row["memory_mb"]),
        )  # fmt: skip
        if self._writes:
            write_epoch_table(self.exp_dir / "log" / "epochs.tsv", history)
        self._write_epoch_events(step, row)
        self.flush()
        self._mark("epoch", epoch=row["epoch"], valid_eer_percent=row["valid_eer_percent"])

    def _write_epoch_events(self, step: int, row: dict[str, float]) -> None:
        if self._events is not None:
            figures = {key: value for key, value in row.items() if key != "epoch"}
            self._events.write(step, figures, "epoch")


def _now() -> float:
    return time.monotonic()
