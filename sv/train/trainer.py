"""The training loop: SGD with an angular-margin head, resumable at any step."""

import logging
import math
import resource
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from sv.data.crops import CropReader, load_crop_index
from sv.data.loader import Batch, count_steps, iterate_batches
from sv.data.training_set import hash_training_set
from sv.errors import SvError
from sv.files import write_json, write_text
from sv.kaldi.data_dir import read_feats, read_table
from sv.kaldi.trials import read_trials
from sv.nnet.margin import AdditiveAngularMargin
from sv.score.cosine import score_cosine
from sv.score.metrics import compute_eer, compute_error_curve
from sv.train.checkpoint import (
    epoch_checkpoint,
    find_epoch_checkpoints,
    find_latest,
    save_checkpoint,
)
from sv.train.config import TrainConfig, describe_difference, format_resolved
from sv.train.embed import embed_utterances
from sv.train.network import build_network
from sv.train.progress import Tally, describe_model, write_epoch_table
from sv.train.schedule import learning_rate, margin

LOG_S = 60.0  # a progress line a minute


class Trainer:
    """One training: everything that changes while it runs.

    Args:
        name: Model name.
        config: Resolved conf/train.toml.
        egs_dir: Training set that stage 4 made.
        exp_dir: Gets checkpoints/, final.pt, model.json, config.toml and log/epochs.tsv.
        device: Where to compute.
        mark: Called with ``("resumed" | "epoch" | "checkpoint", fields)`` as they happen.
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
    ) -> None:
        self.name, self.config, self.device, self.mark = name, config, device, mark
        self.egs_dir, self.exp_dir = egs_dir, exp_dir
        self.checkpoints = exp_dir / "checkpoints"
        self.index = load_crop_index(egs_dir / "train.npz")
        self.speakers = len(read_table(egs_dir / "spk2int"))
        self.set_sha256 = hash_training_set(egs_dir, self.index)
        self.steps_per_epoch = count_steps(len(self.index), config.optimizer.batch_size)
        if self.steps_per_epoch < 1:
            raise SvError(
                f"{egs_dir}: {len(self.index)} utterances do not fill one batch of "
                f"{config.optimizer.batch_size}; lower batch_size in train.toml"
            )
        self.net = build_network(name, config, self.index.columns).to(device)
        # A seed of its own: the head's size must not change the network's first weights.
        torch.manual_seed(config.seed + 1)
        self.head = AdditiveAngularMargin(
            config.embedding_dim, self.speakers, config.margin.scale
        ).to(device)
        optimizer = config.optimizer
        self.optimizer = torch.optim.SGD(
            [
                {"params": self.net.parameters(), "weight_decay": optimizer.weight_decay},
                {"params": self.head.parameters(), "weight_decay": 0.0},
            ],
            lr=optimizer.initial_lr,
            momentum=optimizer.momentum,
        )
        self.step = 0  # steps done, over all epochs
        self.tally = Tally()
        self.history: list[dict[str, float]] = []
        self.last_saved: Path | None = None

    def run(self) -> None:
        """Train to the last epoch, from the last checkpoint if there is one.

        Raises:
            SvError: A run with another config lies in exp_dir, the loss is not finite, or the
                data cannot be read.
        """
        self._resume()
        total = self.config.num_epochs * self.steps_per_epoch
        published = all((self.exp_dir / name).exists() for name in ("final.pt", "model.json"))
        if self.step >= total and not self.tally.steps and published:
            return  # written again, it would look new to the stages after this one
        self.exp_dir.mkdir(parents=True, exist_ok=True)
        write_text(self.exp_dir / "config.toml", format_resolved(self.config), keep_if_same=True)
        if self.step == 0:
            self.history = [{"epoch": 0, "valid_eer_percent": self._validate()}]
            logging.info("untrained: valid EER %.2f %%", self.history[0]["valid_eer_percent"])
        reader = CropReader(self.index)
        try:
            while self.step < total or self.tally.steps:
                # A run that was killed between the last step and its epoch's end has no step left.
                if self.step % self.steps_per_epoch or not self.tally.steps:
                    self._train_epoch(reader)
                self._finish_epoch()
        finally:
            reader.close()
        self._save_final()

    def _resume(self) -> None:
        found = find_latest(self.checkpoints)
        if found is None:
            return
        path, state = found
        differences = describe_difference(state["config"], asdict(self.config))
        if state["model"] != self.name:
            differences.append(f"model: {state['model']} -> {self.name}")
        if state["set_sha256"] != self.set_sha256:
            differences.append(f"training set: {self.egs_dir} holds another one")
        if differences:
            raise SvError(
                f"{self.exp_dir} holds a training with other settings ({'; '.join(differences)}); "
                "give --resume false to move it to .backup and begin again"
            )
        self.net.load_state_dict(state["net"])
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.history = state["step"], state["history"]
        self.tally, self.last_saved = Tally(**state["tally"]), path
        self.mark("resumed", step=self.step)
        total = self.config.num_epochs * self.steps_per_epoch
        logging.info("resumed at step %d of %d", self.step, total)

    def _train_epoch(self, reader: CropReader) -> None:
        """Do what is left of the current epoch."""
        config, epoch = self.config, self.step // self.steps_per_epoch
        batches = iterate_batches(
            reader,
            seed=config.seed,
            epoch=epoch,
            batch_size=config.optimizer.batch_size,
            frames=config.crop_frames,
            specaugment=config.specaugment,
            first_step=self.step % self.steps_per_epoch,
        )
        self.net.train()
        logged = saved = before = time.monotonic()
        for batch in batches:
            arrived = time.monotonic()
            self._train_step(batch)
            now = time.monotonic()
            self.tally.wait_s += arrived - before
            self.tally.train_s += now - before
            before = now
            if now - saved >= 60 * config.checkpoint_minutes:
                self._save(self.checkpoints / "last.pt")
                saved = before = time.monotonic()
            if now - logged >= LOG_S:
                self._log_progress()
                logged = now

    def _train_step(self, batch: Batch) -> None:
        config = self.config
        rate = learning_rate(self.step, self.steps_per_epoch, config.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        angle = margin(self.step, self.steps_per_epoch, config.margin)
        self.optimizer.zero_grad()
        parts = len(batch.speakers) // config.optimizer.micro_batch_size
        crops = torch.from_numpy(batch.crops).to(self.device)
        speakers = torch.from_numpy(batch.speakers).to(self.device)
        step_loss = 0.0
        for x, y in zip(crops.chunk(parts), speakers.chunk(parts), strict=True):
            loss, correct = self.head(self.net(x), y, angle)
            (loss / parts).backward()
            step_loss += loss.item() / parts
            self.tally.correct += int(correct)
        if not math.isfinite(step_loss):
            # The weights are still those of the step before; saving them would help nobody.
            good = self.last_saved or "none"
            raise SvError(
                f"the loss is {step_loss} at step {self.step} (epoch "
                f"{self.step // self.steps_per_epoch + 1}, learning rate {rate:.3g}); last good "
                f"checkpoint: {good}; lower peak_lr or raise warmup_epochs in train.toml"
            )
        self.optimizer.step()
        self.step += 1
        self.tally.steps += 1
        self.tally.crops += len(batch.speakers)
        self.tally.loss += step_loss

    def _log_progress(self) -> None:
        epoch = (self.step - 1) // self.steps_per_epoch + 1
        left = self.config.num_epochs * self.steps_per_epoch - self.step
        minutes = left * self.tally.train_s / self.tally.steps / 60
        logging.info(
            "epoch %d/%d, step %d/%d: %s, about %.0f minutes left",
            epoch, self.config.num_epochs, self.step - (epoch - 1) * self.steps_per_epoch,
            self.steps_per_epoch, self.tally.describe(), minutes,
        )  # fmt: skip

    def _finish_epoch(self) -> None:
        epoch, last, tally = self.step // self.steps_per_epoch, self.step - 1, self.tally
        row = {
            "epoch": epoch,
            "loss": tally.loss / tally.steps,
            "accuracy_percent": 100 * tally.correct / tally.crops,
            "valid_eer_percent": self._validate(),
            "learning_rate": learning_rate(last, self.steps_per_epoch, self.config.optimizer),
            "margin": margin(last, self.steps_per_epoch, self.config.margin),
            "crops_per_s": tally.crops / tally.train_s,
            "wait_percent": 100 * tally.wait_s / tally.train_s,
            "train_s": tally.train_s,
            "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        logging.info(
            "epoch %d/%d done: %s, valid EER %.2f %%",
            epoch, self.config.num_epochs, tally.describe(), row["valid_eer_percent"],
        )  # fmt: skip
        self.history.append(row)
        self.tally = Tally()
        self._save(epoch_checkpoint(self.checkpoints, epoch))
        (self.checkpoints / "last.pt").unlink(missing_ok=True)
        for old in find_epoch_checkpoints(self.checkpoints)[: -self.config.keep_checkpoints]:
            old.unlink()
        write_epoch_table(self.exp_dir / "log" / "epochs.tsv", self.history)
        self.mark("epoch", epoch=epoch, valid_eer_percent=row["valid_eer_percent"])

    def _validate(self) -> float:
        """EER in percent of the held-out trials."""
        valid = self.egs_dir / "valid"
        feats, frames = read_feats(valid / "feats.scp", valid / "utt2num_frames")
        items = dict(embed_utterances(self.net, feats, frames, device=self.device))
        trials = read_trials(valid / "trials")
        scores = score_cosine(trials, list(items), np.stack(list(items.values())))
        return 100 * compute_eer(compute_error_curve(scores, trials.is_target))[0]

    def _save(self, path: Path) -> None:
        state = {
            **self._describe_network(),
            "step": self.step,
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "config": asdict(self.config),
            "set_sha256": self.set_sha256,
            "history": self.history,
            "tally": asdict(self.tally),
        }
        save_checkpoint(path, state)
        self.last_saved = path
        self.mark("checkpoint", step=self.step)

    def _describe_network(self) -> dict[str, object]:
        return {
            "model": self.name,
            "input_dim": self.index.columns,
            "embedding_dim": self.config.embedding_dim,
            "net": self.net.state_dict(),
        }

    def _save_final(self) -> None:
        save_checkpoint(self.exp_dir / "final.pt", self._describe_network())
        info = describe_model(
            self.name,
            self.config,
            input_dim=self.index.columns,
            speakers=self.speakers,
            steps=self.step,
            history=self.history,
        )
        write_json(self.exp_dir / "model.json", info)
