"""The training loop: SGD with an angular-margin head, resumable at any step."""

import contextlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sv.data.crops import CropReader
from sv.data.loader import find_rows, iterate_batches
from sv.errors import SvError
from sv.nnet.recompute import set_checkpointing
from sv.train.config import TrainConfig
from sv.train.egs import load_egs
from sv.train.feed import iterate_on_device
from sv.train.gauge import EnergyGauge
from sv.train.group import Group
from sv.train.network import build_head, build_network
from sv.train.plan import build_plan
from sv.train.progress import Tally
from sv.train.readout import Readout, StepResult
from sv.train.record import Record
from sv.train.step import Stepper
from sv.train.stopping import Limits, Stop, TrainingStopped
from sv.train.store import Store
from sv.train.validation import Validation


class Trainer:
    """One training: everything that changes while it runs.

    Args:
        name: Model name.
        config: Resolved conf/train.toml.
        egs_dir: Training set that stage 4 made.
        exp_dir: Gets checkpoints/, final.pt, model.json, config.toml and log/.
        device: Where to compute.
        mark: Called with a mark's name and fields as things happen: resumed, plan, phase, stretch,
            validation, checkpoint, epoch.
        gauge: Tells the energy of the running attempt.
        limits: What ends the run before the last epoch.
        group: The processes that train together; all of them call the same methods.
    """

    def __init__(
        self,
        name: str,
        config: TrainConfig,
        egs_dir: Path,
        exp_dir: Path,
        *,
        device: torch.device,
        mark: Callable[..., None],
        gauge: EnergyGauge,
        limits: Limits,
        group: Group,
    ) -> None:
        self.config, self.device, self.mark, self.limits = config, device, mark, limits
        self.group = group
        self.egs = load_egs(egs_dir, config.optimizer.batch_size)
        self.plan = build_plan(config, self.egs.steps_per_epoch)
        for phase in self.plan.phases:
            group.check_micro_batch(phase.micro_batch_size)
        self.net = build_network(name, config, self.egs.index.columns).to(device)
        set_checkpointing(self.net, config.activation_checkpointing)
        head = build_head(config, self.egs.speakers).to(device)
        self.stepper = Stepper(self.net, head, config, device, group)
        self.store = Store(exp_dir, model=name, plan=self.plan, egs=self.egs, group=group)
        self.validation = Validation(egs_dir / "valid", device, group)
        self.readout = Readout(device, group)
        self.record = Record(
            exp_dir,
            self.plan,
            device=device,
            gauge=gauge,
            mark=mark,
            max_steps=limits.max_steps,
            writes=group.is_first,
        )
        self.step = 0  # steps done, over all epochs
        self.first_step = 0  # of this run
        self.tally = Tally()  # of the current epoch
        self.history: list[dict[str, float]] = []

    def run(self) -> Stop | None:
        """Train to the last epoch, from the last checkpoint if there is one.

        Returns:
            Why the training ended before its last epoch, with a checkpoint to go on from; None if
            it is done.

        Raises:
            SvError: A run with another config lies in exp_dir, the loss is not finite, or the
                data cannot be read.
        """
        self._resume()
        trained = self.step >= self.plan.num_steps and not self.tally.steps
        if trained and self.store.is_finished():
            return None  # written again, it would look new to the stages after this one
        self.store.write_config()
        try:
            self.limits.require_energy()
            self._agree_on_signals()
            self.record.open(self.step, self.history)
            self._train()
        except TrainingStopped as stopped:
            self._pause()
            if self.step > self.first_step:
                self._save()
            where = f"at step {self.step} of {self.plan.num_steps}"
            saved = f"checkpoint: {self.store.last_saved or 'none yet'}"
            stop = stopped.stop
            return replace(stop, reason=f"{stop.reason}, {where}; {saved}; {stop.advice}")
        finally:
            self.record.close()
        self.store.save_final(self.step, self.history)
        return None

    def _resume(self) -> None:
        state = self.store.load_latest()
        if state is None:
            return
        self.stepper.load_state_dict(state)
        self.step = self.first_step = state["step"]
        self.history, self.tally = state["history"], Tally(**state["tally"])
        self.mark("resumed", step=self.step)
        logging.info("resumed at step %d of %d", self.step, self.plan.num_steps)

    def _train(self) -> None:
        # A run that was killed between the last step and its epoch's end has no step left.
        self.record.mark_phase(self.step - 1 if self.tally.steps else self.step)
        if self.step == 0:
            self.history = [self.record.describe_untrained(*self._validate())]
        reader = CropReader(self.egs.index)
        try:
            while self.step < self.plan.num_steps or self.tally.steps:
                if self.step % self.plan.steps_per_epoch or not self.tally.steps:
                    self._train_epoch(reader)
                self._finish_epoch()
        finally:
            reader.close()

    def _train_epoch(self, reader: CropReader) -> None:
        """Do what is left of the current epoch."""
        phase, batch_size = self.plan.find_phase(self.step), self.config.optimizer.batch_size
        self.record.mark_phase(self.step)
        batches = iterate_batches(
            reader,
            seed=self.config.seed,
            epoch=self.step // self.plan.steps_per_epoch,
            batch_size=batch_size,
            frames=phase.crop_frames,
            specaugment=phase.specaugment,
            first_step=self.step % self.plan.steps_per_epoch,
            rows=find_rows(batch_size, phase.micro_batch_size, self.group.rank, self.group.size),
        )
        self.net.train()
        self.record.begin_epoch(self.tally)
        saved = before = time.monotonic()
        with contextlib.closing(batches):  # at once, not when the last error is forgotten
            for crops, speakers in iterate_on_device(batches, self.device):
                self._train_step(crops, speakers, time.monotonic() - before)
                now = time.monotonic()
                self.tally.train_s += now - before
                before = now
                if now - saved >= 60 * self.config.checkpoint_minutes:
                    self.record.end(self.tally)
                    self._save()
                    self.record.begin(self.tally)
                    saved = before = time.monotonic()
                if self.record.is_line_due():
                    self._settle(everything=True)
                    self.record.log_progress(self.step, self.tally, self.history)
                self.record.mark_stretch(self.tally)
                if self.step < self.plan.num_steps:
                    known = self.step - 1 - self.readout.lag
                    self.limits.check(self.step - self.first_step, known)
        self._settle(everything=True)
        self.tally.train_s += time.monotonic() - before  # what a GPU had left to do
        self._pause()

    def _pause(self) -> None:
        """End a stretch of steps: a validation follows, or the end of the run."""
        self._settle(everything=True)
        self.record.end(self.tally)
        self.record.mark_stretch(self.tally, is_last=True)

    def _train_step(self, crops: Tensor, speakers: Tensor, waited_s: float) -> None:
        rate = self.plan.learning_rate(self.step)
        began = self.readout.begin()
        loss, correct = self.stepper.compute_gradients(
            crops,
            speakers,
            margin=self.plan.margin(self.step),
            micro_batch_size=self.plan.find_phase(self.step).micro_batch_size // self.group.size,
        )
        self.readout.put(
            self.step,
            loss,
            correct,
            crops=len(speakers) * self.group.size,
            waited_s=waited_s,
            began=began,
            stop=self.limits.look(),
        )
        # On a CPU this is the loss of this step, before it moves the weights; on a GPU that of the
        # step before, and then what it has spoilt is never saved.
        self._settle()
        self.stepper.update(rate)
        self.step += 1

    def _settle(self, *, everything: bool = False) -> None:
        """Take the results that are there into the tally; stop where the loss is not finite."""
        for result in self.readout.take(everything=everything):
            if not math.isfinite(result.loss):
                raise self._diverged(f"the loss is {result.loss}", result.step)
            self._count(result)

    def _count(self, result: StepResult) -> None:
        self.tally.steps += 1
        self.tally.crops += result.crops
        self.tally.correct += result.correct
        self.tally.loss += result.loss
        self.tally.wait_s += result.wait_s
        self.limits.note(result.step, result.stop)

    def _check_weights(self) -> None:
        if not self.stepper.is_finite():
            raise self._diverged("the weights are not finite after the update", self.step - 1)

    def _diverged(self, what: str, step: int) -> SvError:
        return SvError(
            f"{what} at step {step} (epoch {step // self.plan.steps_per_epoch + 1}, learning rate "
            f"{self.plan.learning_rate(step):.3g}); last good checkpoint: "
            f"{self.store.last_saved or 'none'}; lower peak_lr or raise warmup_epochs in train.toml"
        )

    def _finish_epoch(self) -> None:
        self._check_weights()  # before they are validated
        tally, (eer_percent, valid_s) = self.tally, self._validate()
        best = min((r["valid_eer_percent"] for r in self.history if r["epoch"]), default=math.inf)
        self.history.append(self.record.describe_epoch(self.step, tally, eer_percent, valid_s))
        self.tally = Tally()
        epoch = self.step // self.plan.steps_per_epoch
        self.store.save_epoch(self._get_state(), epoch, is_best=eer_percent < best)
        self.mark("checkpoint", step=self.step)
        self.record.finish_epoch(self.step, tally, self.history)

    def _validate(self) -> tuple[float, float]:
        """EER in percent of the held-out trials, and the seconds that it took."""
        started = time.monotonic()
        eer = self.validation.compute_eer_percent(
            self.net, lambda: self.limits.signal_status > 0, self._agree_on_signals
        )
        valid_s = time.monotonic() - started
        self.mark("validation", seconds=valid_s)
        return eer, valid_s

    def _agree_on_signals(self) -> None:
        if status := self.group.agree(self.limits.signal_status):
            raise TrainingStopped(self.limits.explain(status))

    def _save(self) -> None:
        self._settle(everything=True)
        self._check_weights()
        self.store.save_last(self._get_state())
        self.record.flush()
        self.mark("checkpoint", step=self.step)

    def _get_state(self) -> dict[str, Any]:
        return {
            **self.stepper.state_dict(),
            "step": self.step,
            "history": self.history,
            "tally": asdict(self.tally),
        }
