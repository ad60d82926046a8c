"""The training loop: SGD with an angular-margin head, resumable at any step.

On a GPU nothing waits for the device: batches are copied to it, and the results of steps back,
while it computes.
"""

import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sv.data.crops import CropReader
from sv.data.loader import Batch, find_share, iterate_batches
from sv.data.parallel import map_ahead
from sv.errors import SvError
from sv.nnet.recompute import set_checkpointing
from sv.train.config import TrainConfig, build_plan, validate_processes
from sv.train.egs import Validation, load_egs
from sv.train.group import Group
from sv.train.log import Totals, TrainingLog
from sv.train.memory import choose_checkpointing
from sv.train.step import TrainStep
from sv.train.stopping import Stop, StopConditions
from sv.train.store import Checkpoints, History, build_head, build_network


def prefetch(
    batches: Iterable[Batch], device: torch.device
) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Yield crops (B, frames, features) float32 and speakers (B,) int64 on ``device``; `read_s`.

    A GPU computes by itself once a step's work is queued; meanwhile a thread copies the next batch
    from page-locked memory on a stream of its own, so that the copy costs no time.
    """
    if device.type != "cuda":
        for batch in batches:
            yield torch.from_numpy(batch.crops), torch.from_numpy(batch.speakers), batch.read_s
        return
    copies = torch.cuda.Stream(device)

    def copy(batch: Batch) -> tuple[Tensor, Tensor, torch.cuda.Event, float]:
        with torch.cuda.stream(copies):  # and on its device, which is another one in a new thread
            crops, speakers = (
                torch.from_numpy(array).pin_memory().to(device, non_blocking=True)
                for array in (batch.crops, batch.speakers)
            )
            return crops, speakers, copies.record_event(), batch.read_s

    with ThreadPoolExecutor(1, "copies") as pool:
        for crops, speakers, copied, read_s in map_ahead(pool, copy, batches, 1):
            computing = torch.cuda.current_stream(device)
            computing.wait_event(copied)
            for tensor in (crops, speakers):
                tensor.record_stream(computing)  # else its memory is too early another copy's
            yield crops, speakers, read_s


@dataclass(frozen=True)
class StepResult:
    """The results of one step, over all processes.

    ``wait_s`` is how long a device was idle for want of data, the mean of the processes.
    """

    step: int
    loss: float
    correct: int
    crops: int
    wait_s: float


class AsyncMetrics:
    """Brings the results of steps to the host, in order: at once on a CPU, a step late on a GPU.

    Reading a number from a GPU waits until all its work is done, and leaves it without work. So
    the loss of a step is copied while the device computes, and read when the next step is queued.
    The numbers of several processes are summed on the device, their votes to stop with them.

    Args:
        device: Where the results arise.
        group: The processes whose results are summed.

    Attributes:
        lag: Steps by which `take` is late.
    """

    def __init__(self, device: torch.device, group: Group) -> None:
        self._on_gpu = device.type == "cuda"
        self._group, self.lag = group, int(self._on_gpu)
        self._pending: deque[Callable[[], StepResult]] = deque()  # each waits for its step
        self._began: torch.cuda.Event | None = None
        self._end: torch.cuda.Event | None = None  # of the newest step

    def begin(self) -> None:
        """Note that a step's data has arrived; on a GPU before its work is queued."""
        self._began = self._record() if self._on_gpu else None

    def put(
        self,
        step: int,
        loss: Tensor,
        correct: Tensor,
        *,
        crops: int,
        waited_s: float,
    ) -> None:
        """Hand in the results of a step; a collective call: every process makes it.

        Args:
            step: Its number.
            loss: What this process adds to the batch's mean, a scalar on the device.
            correct: Number of correct answers of this process, likewise.
            crops: Crops of the whole batch.
            waited_s: How long this host waited for data.
        """
        host = torch.tensor(
            [waited_s / self._group.size], dtype=torch.double, pin_memory=loss.is_cuda
        )
        found = torch.stack([loss.double(), correct.double()])
        numbers = torch.cat([found, host.to(loss.device, non_blocking=True)])
        numbers = self._group.total(numbers)
        last_end, began = self._end, self._began
        if self._on_gpu:
            on_device = numbers
            numbers = torch.empty(len(on_device), dtype=torch.double, pin_memory=True)
            numbers.copy_(on_device, non_blocking=True)
            self._end = self._record()
        end = self._end

        def read() -> StepResult:
            if end is not None:
                end.synchronize()
            loss, correct, wait_s = numbers.tolist()
            if last_end is not None and began is not None:
                # While the host waited the device may still have been computing the last step.
                wait_s = min(wait_s, max(0.0, last_end.elapsed_time(began) / 1000))
            return StepResult(step, loss, int(correct), crops, wait_s)

        self._pending.append(read)

    def take(self, *, everything: bool = False) -> list[StepResult]:
        """Return the results that are to be read now, oldest first.

        On a GPU these are all but the newest step's; ``everything`` waits for the device.
        """
        keep = 0 if everything else self.lag
        return [self._pending.popleft()() for _ in range(len(self._pending) - keep)]

    @staticmethod
    def _record() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


class Trainer:
    """One training: everything that changes while it runs.

    Args:
        name: Model name.
        config: Resolved conf/train.toml.
        egs_dir: Training set that stage 4 made.
        exp_dir: Gets checkpoints/, final.pt, model.json, config.toml and log/.
        device: Where to compute.
        mark: Called with a mark's name and fields as things happen: resumed, unchanged (there was
            nothing to do), plan, phase, stretch (of a bounded run), validation, checkpoint, epoch,
            stopped (at the budget).
        conditions: What ends the run before the last epoch.
        group: The processes that train together; all call the same methods.
        backup: Where an earlier run is moved before this one begins; None: it is resumed.
        features_root: Where this machine has copies of the features (`sv.data.staging`).
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
        conditions: StopConditions,
        group: Group,
        backup: Path | None = None,
        features_root: Path | None = None,
    ) -> None:
        self.backup = backup
        self.name, self.device, self.mark = name, device, mark
        self.group = group
        self.conditions = conditions
        self.egs = load_egs(egs_dir, config.optimizer.batch_size, features_root)
        self.plan = build_plan(config, self.egs.steps_per_epoch)
        validate_processes(config, group.size)
        input_dim = self.egs.index.columns

        def build() -> tuple[nn.Module, nn.Module]:
            return build_network(name, config, input_dim), build_head(config, self.egs.speakers)

        mode = choose_checkpointing(self.plan, build, input_dim, device=device, group=group)
        self.config = replace(config, checkpointing=mode)  # as config.toml will say
        self.plan = replace(self.plan, config=self.config)
        self.net, head = (module.to(device) for module in build())
        set_checkpointing(self.net, mode)
        self.train_step = TrainStep(self.net, head, config, device, group)
        self.checkpoints = Checkpoints(
            exp_dir, model=name, plan=self.plan, egs=self.egs, group=group
        )
        self.validation = Validation(egs_dir / "valid", device, group)
        self.metrics = AsyncMetrics(device, group)
        self.log = TrainingLog(
            exp_dir,
            self.plan,
            device=device,
            energy=conditions.energy,
            mark=mark,
            max_steps=conditions.max_steps,
            writes=group.is_first,
        )
        self.step = 0  # steps done, over all epochs
        self.first_step = 0  # of this run
        self.totals = Totals()  # of the current epoch
        self.history: History = []
        self.longest_save_s = 0.0
        self._queued: deque[torch.cuda.Event] = deque()  # ends of micro-batches

    def run(self) -> Stop | None:
        """Train to the last epoch, from the last checkpoint if there is one.

        Returns:
            Why the training ended before its last epoch, with a checkpoint to resume from; None
            if it is done.

        Raises:
            SvError: exp_dir holds a run with another config, the loss is not finite, or the data
                cannot be read.
        """
        if self.backup is not None:
            # A good run leaves its place only for one that nothing is known to refuse.
            CropReader(self.egs.index).close()
            self.conditions.require_energy()
            self.checkpoints.set_aside(self.backup)
        self._resume()
        trained = self.step >= self.plan.num_steps and not self.totals.steps
        if trained and self.checkpoints.is_finished():
            # Written again, it would look new to the stages after this one.
            what = f"training of {self.name} is finished, step {self.step} of {self.step}"
            self.mark("unchanged", what=what)
            logging.info("nothing to do: %s", what)
            return None
        self.checkpoints.write_config()
        try:
            self.conditions.require_energy()
            self._stop_on_signals()
            self.log.open(self.step, self.history)
            self._train()
        except Stop as stop:
            self._pause()
            if self.step > self.first_step:
                self._save()
            if stop.budget_kwh is not None:
                self.mark("stopped", budget_kwh=stop.budget_kwh)
            where = f"at step {self.step} of {self.plan.num_steps}"
            saved = f"checkpoint: {self.checkpoints.last_saved or 'none yet'}"
            return replace(stop, reason=f"{stop.reason}, {where}; {saved}; {stop.advice}")
        finally:
            self.log.close()
        self.checkpoints.save_final(self.step, self.history)
        return None

    def _resume(self) -> None:
        state = self.checkpoints.load_latest()
        if state is None:
            return
        self.train_step.load_state_dict(state)
        self.step = self.first_step = state["step"]
        self.history, self.totals = state["history"], Totals(**state["tally"])
        self.mark("resumed", step=self.step)
        logging.info("resumed at step %d of %d", self.step, self.plan.num_steps)

    def _train(self) -> None:
        # A run that was killed between the last step and its epoch's end has no step left.
        self.log.mark_phase(self.step - 1 if self.totals.steps else self.step)
        if self.step == 0:
            self.history = [self.log.describe_untrained(*self._validate())]
        reader = CropReader(self.egs.index)
        try:
            while self.step < self.plan.num_steps or self.totals.steps:
                if self.step % self.plan.steps_per_epoch or not self.totals.steps:
                    self._train_epoch(reader)
                self._finish_epoch()
        finally:
            reader.close()

    def _train_epoch(self, reader: CropReader) -> None:
        """Train the rest of the current epoch."""
        phase, batch_size = self.plan.find_phase(self.step), self.config.optimizer.batch_size
        group = self.group
        self.log.mark_phase(self.step)
        batches = iterate_batches(
            reader,
            seed=self.config.seed,
            epoch=self.step // self.plan.steps_per_epoch,
            batch_size=batch_size,
            frames=phase.crop_frames,
            specaugment=phase.specaugment,
            first_step=self.step % self.plan.steps_per_epoch,
            rows=find_share(batch_size, phase.micro_batch_size, group.rank, group.size).rows,
        )
        self.net.train()
        torch.backends.cudnn.benchmark = True  # crops have one shape: the fastest algorithm for it
        self.log.begin_epoch(self.totals)
        self.conditions.begin()
        saved = before = time.monotonic()
        on_device = prefetch(batches, self.device)
        # At once, not when the last error is forgotten.
        with contextlib.closing(batches), contextlib.closing(on_device):
            for crops, speakers, read_s in on_device:
                self._do_step(crops, speakers, time.monotonic() - before)
                self.totals.read_s += read_s
                now = time.monotonic()
                self.totals.train_s += now - before
                before = now
                if now - saved >= 60 * self.config.checkpoint_minutes:
                    self.log.end(self.totals)
                    self._save()
                    self.log.begin(self.totals)
                    saved = before = time.monotonic()
                if self.log.is_line_due():
                    self._settle(everything=True)
                    self.log.log_progress(self.step, self.totals, self.history)
                self.log.mark_segment(self.totals)
                if self.step < self.plan.num_steps:
                    self.conditions.check_steps(self.step - self.first_step)
        self._settle(everything=True)
        self.totals.train_s += time.monotonic() - before  # what a GPU had left to do
        self._pause()

    def _pause(self) -> None:
        """Read all results before a validation or the end of the run."""
        self._settle(everything=True)
        self.log.end(self.totals)
        self.log.mark_segment(self.totals, is_last=True)

    def _do_step(self, crops: Tensor, speakers: Tensor, waited_s: float) -> None:
        rate, batch_size = self.plan.learning_rate(self.step), self.config.optimizer.batch_size
        self.metrics.begin()
        loss, correct = self.train_step.compute_gradients(
            crops,
            speakers,
            margin=self.plan.margin(self.step),
            micro_batch_size=self.plan.find_phase(self.step).micro_batch_size,
            batch_size=batch_size,
            look=self._look,
        )
        self.metrics.put(
            self.step,
            loss,
            correct,
            crops=batch_size,
            waited_s=waited_s,
        )
        # On a CPU this reads the loss of this step, before the weights change. On a GPU it reads
        # that of the step before: what a bad loss has spoilt is never saved.
        self._settle()
        self.train_step.update(rate)
        self.step += 1

    def _look(self) -> None:
        """Look for a stop between two micro-batches; a GPU has at most two queued then."""
        if self.device.type == "cuda":
            self._queued.append(torch.cuda.Event())
            self._queued[-1].record()
            if len(self._queued) > 1:
                self._queued.popleft().synchronize()
        self.conditions.look(self.group)

    def _settle(self, *, everything: bool = False) -> None:
        """Add the results that have arrived to the totals; raise if a loss is not finite."""
        for result in self.metrics.take(everything=everything):
            if not math.isfinite(result.loss):
                raise self._diverged(f"the loss is {result.loss}", result.step)
            self.totals.steps += 1
            self.totals.crops += result.crops
            self.totals.correct += result.correct
            self.totals.loss += result.loss
            self.totals.wait_s += result.wait_s

    def _check_weights(self) -> None:
        if not self.train_step.is_finite():
            raise self._diverged("the weights are not finite after the update", self.step - 1)

    def _diverged(self, what: str, step: int) -> SvError:
        return SvError(
            f"{what} at step {step} (epoch {step // self.plan.steps_per_epoch + 1}, learning rate "
            f"{self.plan.learning_rate(step):.3g}); last good checkpoint: "
            f"{self.checkpoints.last_saved or 'none'}; lower peak_lr or raise warmup_epochs in "
            "train.toml"
        )

    def _finish_epoch(self) -> None:
        self._check_weights()  # before they are validated
        totals, (eer_percent, valid_s) = self.totals, self._validate()
        best = min((r["valid_eer_percent"] for r in self.history if r["epoch"]), default=math.inf)
        self.history.append(self.log.describe_epoch(self.step, totals, eer_percent, valid_s))
        self.totals = Totals()
        epoch = self.step // self.plan.steps_per_epoch
        with self._saving():
            self.checkpoints.save_epoch(self._get_state(), epoch, is_best=eer_percent < best)
        self.log.finish_epoch(self.step, totals, self.history)

    def _validate(self) -> tuple[float, float]:
        """Return the EER of the held-out trials in percent, and the seconds that it took."""
        torch.backends.cudnn.benchmark = False  # each batch has another shape
        started = time.monotonic()
        eer = self.validation.compute_eer_percent(
            self.net, lambda: self.conditions.signal_status > 0, self._stop_on_signals
        )
        valid_s = time.monotonic() - started
        self.mark("validation", seconds=valid_s)
        return eer, valid_s

    def _stop_on_signals(self) -> None:
        if status := self.group.agree(self.conditions.signal_status):
            raise self.conditions.explain(status)

    def _save(self) -> None:
        self._settle(everything=True)
        self._check_weights()
        with self._saving():
            self.checkpoints.save_last(self._get_state())
            self.log.flush()

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        """Report a checkpoint, and how long a stop takes: up to two micro-batches and a save."""
        began = time.monotonic()
        yield
        self.longest_save_s = max(self.longest_save_s, time.monotonic() - began)
        stop_s = 2 * self.conditions.longest_s + self.longest_save_s
        self.mark("checkpoint", step=self.step, stop_s=round(stop_s, 1))

    def _get_state(self) -> dict[str, Any]:
        return {
            **self.train_step.state_dict(),
            "step": self.step,
            "history": self.history,
            "tally": asdict(self.totals),
        }
