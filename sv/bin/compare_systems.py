"""Compare two systems on the same trials: difference of EER and minDCF, with its interval."""

import json
import os
import sys
from collections.abc import Sequence

import numpy as np

from sv.bin.cli import Parser, positive_int, run, whole_file
from sv.errors import SvError
from sv.score.bootstrap import Measured, bootstrap_metrics, compute_digest, subtract
from sv.score.metrics import compute_metrics
from sv.score.trials import read_scored, read_speakers


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each measure, or JSON."""
    parser = Parser(__doc__)
    parser.add_argument("--replicates", type=positive_int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-threads", type=positive_int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument(
        "--utt2spk", type=whole_file, required=True, help="speaker of every utterance"
    )
    parser.add_argument("trials", type=whole_file, help="lines: enrol test target|nontarget")
    parser.add_argument("scores_a", type=whole_file, help="of system A, lines: enrol test score")
    parser.add_argument("scores_b", type=whole_file, help="of system B")
    args = parser.parse_args(argv)
    if args.seed < 0:
        parser.error(f"--seed must be at least 0, not {args.seed}")
    speakers = read_speakers(args.trials, args.utt2spk)
    measured = []
    for path in (args.scores_a, args.scores_b):
        trials, scores = read_scored(args.trials, path)
        metrics = compute_metrics(scores, trials.is_target)
        found = bootstrap_metrics(
            trials, scores, speakers,
            seed=args.seed, replicates=args.replicates, threads=args.num_threads,
        )  # fmt: skip
        draws = ((compute_digest(trials), args.seed, args.replicates),)
        values = {"EER": (metrics.eer_percent, found.eer_percent)}
        values |= {f"minDCF({p})": (metrics.min_dcf[p], r) for p, r in found.min_dcf.items()}
        measured.append(
            {name: Measured(v, draws, found.speakers, r) for name, (v, r) in values.items()}
        )
    rows = {name: _compare(a, measured[1][name]) for name, a in measured[0].items()}
    if args.format == "json":
        counts = {"replicates": args.replicates, "seed": args.seed, "speakers": found.speakers}
        print(json.dumps({**rows, **counts}, indent=1))
        return 0
    for name, row in rows.items():
        verdict = "within noise" if row["within_noise"] else "more than noise"
        print(
            f"{name}: A {row['a']:.4g}, B {row['b']:.4g}, A - B {row['value']:+.3g}, 95 % interval "
            f"{row['low']:+.3g} to {row['high']:+.3g}, p {row['p_value']:.3f}: {verdict}"
        )
    return 0


def _compare(a: Measured, b: Measured) -> dict[str, float | bool]:
    difference = subtract(a, b)
    assert difference is not None  # both are scores of one list
    if difference.interval is None:
        undefined = np.count_nonzero(np.isnan(difference.replicates))
        raise SvError(
            f"{undefined} of {len(difference.replicates)} replicates drew no target or no "
            "nontarget trial: the list has too few speakers"
        )
    low, high = difference.interval
    return {
        "a": a.value,
        "b": b.value,
        "value": difference.value,
        "low": low,
        "high": high,
        "p_value": difference.p_value,
        "within_noise": difference.within_noise,
    }


if __name__ == "__main__":
    sys.exit(run("sv.bin.compare_systems", main))
