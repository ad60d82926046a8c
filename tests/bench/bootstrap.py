#!/usr/bin/env python3
"""How long 1,000 replicates of a list of Vox1-H's size take, and what sorting once is worth.

Usage: python3 tests/bench/bootstrap.py [ROUNDS [TRIALS [SPEAKERS]]]

Baseline: the naive bootstrap over speakers, which draws the list anew for every replicate (each
trial as often as it is drawn) and measures it from its sort on, with the same sv.score.metrics
and the same draws. It does not even make the DET curve's interval, which ours does. A round of
the baseline is a few replicates, of ours as many as a list gets. Prints replicates a second, the
ratio, the seconds of 1,000 replicates, and whether both gave the same EERs. Target: under 60 s.
"""

import os
import statistics
import sys

import numpy as np
from timing import measure_rates, print_rates

from sv.kaldi.trials import Trials
from sv.score.bootstrap import bootstrap_metrics, draw_multiplicities, find_speakers
from sv.score.metrics import compute_metrics

REPLICATES, NAIVE = 1000, 5
UTTERANCES = 115  # of a speaker; Vox1-H has 137,924 of 1,190


def build_list(trials: int, speakers: int) -> tuple[Trials, np.ndarray, dict[str, str]]:
    """Make a list, half of it targets, with scores of an EER of some percent."""
    rng = np.random.default_rng(0)
    utterances = [f"id{s:05d}-{u}" for s in range(speakers) for u in range(UTTERANCES)]
    of = np.repeat(np.arange(speakers), UTTERANCES)
    enrol = rng.integers(0, len(of), trials)
    same = of[enrol] * UTTERANCES + rng.integers(0, UTTERANCES, trials)
    test = np.where(rng.random(trials) < 0.5, same, rng.integers(0, len(of), trials))
    is_target = of[enrol] == of[test]
    effect = rng.normal(size=speakers) * 0.5
    scores = rng.normal(size=trials) + effect[of[enrol]] + np.where(is_target, 4, effect[of[test]])
    listed = Trials(utterances, enrol.astype(np.int32), test.astype(np.int32), is_target)
    return listed, scores, {u: u.split("-")[0] for u in utterances}


def main() -> None:
    """Measure both ways and check that they agree."""
    words = [int(word) for word in sys.argv[1:]]
    rounds, trials, speakers = [*words, *(5, 550_894, 1190)[len(words) :]]
    listed, scores, utt2spk = build_list(trials, speakers)
    threads = len(os.sched_getaffinity(0))
    found: dict[str, np.ndarray] = {}

    def run_naive() -> float:
        names, of = find_speakers(listed, utt2spk)
        drawn = draw_multiplicities(names, seed=0, replicates=NAIVE).astype(np.int64)
        eers = []
        for times in drawn:
            first, second = times[of[listed.enrol]], times[of[listed.test]]
            often = np.where(listed.is_target, first, first * second)
            again = compute_metrics(np.repeat(scores, often), np.repeat(listed.is_target, often))
            eers.append(again.eer_percent)
        found["naive"] = np.array(eers)
        return NAIVE

    def run_ours(threads: int) -> float:
        results = bootstrap_metrics(
            listed, scores, utt2spk, seed=0, replicates=REPLICATES, threads=threads
        )
        found["ours"] = results.eer_percent
        return REPLICATES

    ways = {
        "naive": run_naive,
        "ours, 1 thread": lambda: run_ours(1),
        f"ours, {threads} threads": lambda: run_ours(threads),
    }
    print(f"{trials} trials, {speakers} speakers, {REPLICATES} replicates, {rounds} rounds")
    rates = measure_rates(ways, rounds)
    print_rates(rates, "replicates", "naive")
    for name, values in rates.items():
        print(f"{name}: {1000 / statistics.median(values):.1f} s for 1000 replicates")
    worst = np.abs(found["naive"] - found["ours"][:NAIVE]).max()
    print(f"largest difference of an EER: {worst:.2g} percent points")


if __name__ == "__main__":
    main()
