#!/usr/bin/env python3
"""How wide the bootstrap's intervals are against the true spread of the EER, in simulated worlds.

Usage: python3 tests/bench/bootstrap_width.py [WORLDS]

A world is a draw of speakers: some are easily confused, some are badly recognised. The EERs of many
worlds have a true spread; the intervals of sv.score.bootstrap, and those of resampling trials one
by one (the baseline), should be as wide.
Prints mean width / true width, and how often the interval holds the mean EER of all worlds.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sv.kaldi.trials import Trials  # noqa: E402
from sv.score.bootstrap import bootstrap_metrics  # noqa: E402
from sv.score.metrics import compute_eer, compute_error_curve  # noqa: E402

UTTERANCES, EFFECT, SHIFT = 4, 0.7, 2.5  # utterances a speaker; of a speaker; of a target
REPLICATES, RESAMPLED = 200, 100
PERCENTILES = (2.5, 97.5)


def build_world(rng: np.random.Generator, speakers: int) -> tuple[Trials, np.ndarray, dict]:
    """Draw speakers; every pair of their utterances is a trial, scored so that speakers differ."""
    names = [f"s{s:03}-{u}" for s in range(speakers) for u in range(UTTERANCES)]
    enrol, test = np.triu_indices(len(names), 1)
    first, second = enrol // UTTERANCES, test // UTTERANCES
    is_target = first == second
    own, common = rng.normal(size=(2, speakers)) * EFFECT
    scores = rng.normal(size=len(enrol))
    scores += np.where(is_target, SHIFT + own[first], common[first] + common[second])
    trials = Trials(names, enrol.astype(np.int32), test.astype(np.int32), is_target)
    return trials, scores, {name: name[:4] for name in names}


def compute_eer_percent(scores: np.ndarray, is_target: np.ndarray) -> float:
    """EER in percent."""
    return 100 * compute_eer(compute_error_curve(scores, is_target))[0]


def main() -> int:
    """Print a line for each number of speakers."""
    worlds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    print("speakers  width/true, speakers resampled  coverage  width/true, trials resampled")
    for speakers in (10, 25, 60):
        rng = np.random.default_rng(speakers)
        eers, by_speaker, by_trial = [], [], []
        for world in range(worlds):
            trials, scores, utt2spk = build_world(rng, speakers)
            eers.append(compute_eer_percent(scores, trials.is_target))
            drawn = bootstrap_metrics(trials, scores, utt2spk, seed=world, replicates=REPLICATES)
            by_speaker.append(np.nanpercentile(drawn.eer_percent, PERCENTILES))
            picks = rng.integers(len(scores), size=(RESAMPLED, len(scores)))
            redrawn = [compute_eer_percent(scores[p], trials.is_target[p]) for p in picks]
            by_trial.append(np.percentile(redrawn, PERCENTILES))
        true_width, mean = np.diff(np.percentile(eers, PERCENTILES))[0], np.mean(eers)
        ratios = [np.diff(np.array(w), axis=1).mean() / true_width for w in (by_speaker, by_trial)]
        covered = np.mean([low <= mean <= high for low, high in by_speaker])
        print(f"{speakers:8}  {ratios[0]:28.2f}  {covered:8.2f}  {ratios[1]:27.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
