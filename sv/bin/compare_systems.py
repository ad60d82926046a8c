"""Compare two systems on the same trials: difference of EER and minDCF, with its interval."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sv.bin.cli import Parser, positive_int, run
from sv.score.bootstrap import Difference, Replicates, bootstrap_metrics, compute_difference
from sv.score.metrics import compute_metrics
from sv.score.record import Metrics
from sv.score.trials import read_scored, read_speakers


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each measure, or JSON."""
    parser = Parser(__doc__)
    parser.add_argument("--replicates", type=positive_int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-threads", type=positive_int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("--utt2spk", type=Path, required=True, help="speaker of every utterance")
    parser.add_argument("trials", type=Path, help="lines: enrol test target|nontarget")
    parser.add_argument("scores_a", type=Path, help="of system A, lines: enrol test score")
    parser.add_argument("scores_b", type=Path, help="of system B")
    args = parser.parse_args(argv)
    if args.seed < 0:
        parser.error(f"--seed must be at least 0, not {args.seed}")
    speakers = read_speakers(args.trials, args.utt2spk)
    values, replicates = [], []
    for path in (args.scores_a, args.scores_b):
        trials, scores = read_scored(args.trials, path)
        values.append(_by_name(compute_metrics(scores, trials.is_target)))
        found = bootstrap_metrics(
            trials, scores, speakers,
            seed=args.seed, replicates=args.replicates, threads=args.num_threads,
        )  # fmt: skip
        replicates.append(_by_name(found))
    differences = {
        name: compute_difference(values[0][name] - values[1][name], *(r[name] for r in replicates))
        for name in values[0]
    }
    for name, difference in differences.items() if args.format == "text" else ():
        print(f"{name}: {_describe(values[0][name], values[1][name], difference)}")
    if args.format == "json":
        record = {
            name: {"a": values[0][name], "b": values[1][name], **d.as_record()}
            for name, d in differences.items()
        }
        counts = {"replicates": args.replicates, "seed": args.seed, "speakers": found.speakers}
        print(json.dumps({**record, **counts}, indent=1))
    return 0


def _by_name(found: Metrics | Replicates) -> dict[str, Any]:
    return {"EER": found.eer_percent} | {f"minDCF({p})": v for p, v in found.min_dcf.items()}


def _describe(a: float, b: float, d: Difference) -> str:
    verdict = "within noise" if d.within_noise else "more than noise"
    return (
        f"A {a:.4g}, B {b:.4g}, A - B {d.value:+.3g}, 95 % interval {d.low:+.3g} to {d.high:+.3g}, "
        f"p {d.p_value:.3f}: {verdict}"
    )


if __name__ == "__main__":
    sys.exit(run("sv.bin.compare_systems", main))
