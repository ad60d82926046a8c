"""Measure a score file of any toolkit against its trial list: EER, minDCF; actDCF, Cllr."""

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from sv.bin.cli import Parser, run, true_or_false
from sv.errors import UsageError
from sv.kaldi import columns
from sv.score.matching import match_scores
from sv.score.metrics import compute_metrics


def main(argv: Sequence[str] | None = None) -> int:
    """Print the metrics; which columns were taken for what is said on stderr."""
    parser = Parser(__doc__)
    parser.add_argument("--columns", help="of the list: enrol,test,label in its order")
    parser.add_argument("--score-columns", help="of the scores: enrol,test,score in their order")
    parser.add_argument(
        "--calibrated", type=true_or_false, default=False,
        help="true: the scores are log-likelihood ratios (natural logarithm): actDCF and Cllr too",
    )  # fmt: skip
    parser.add_argument("--format", default="table", help="table or json")
    parser.add_argument("trials", type=Path, help="a trial list, columns in any order")
    parser.add_argument("scores", type=Path, help="a score file, lines in any order")
    args = parser.parse_args(argv)
    if args.format not in ("table", "json"):
        raise UsageError(f"--format {args.format}: must be table or json")
    if args.columns:
        of_trials = columns.parse_columns(args.columns, columns.TRIAL_COLUMNS, "--columns")
    else:
        of_trials = columns.find_trial_columns(args.trials)
    logging.info("%s: columns %s", args.trials, ",".join(of_trials))
    trials = columns.read_any_trials(args.trials, of_trials)
    if args.score_columns:
        of_scores = columns.parse_columns(
            args.score_columns, columns.SCORE_COLUMNS, "--score-columns"
        )
    else:
        of_scores = columns.find_score_columns(args.scores, set(trials.utterances))
    logging.info("%s: columns %s", args.scores, ",".join(of_scores))
    table = columns.read_any_scores(args.scores, of_scores)
    scores = match_scores(trials, table, args.scores)
    metrics = compute_metrics(scores, trials.is_target, calibrated=args.calibrated)
    print(json.dumps(metrics, indent=1) if args.format == "json" else _format_table(metrics))
    return 0


def _format_table(metrics: dict) -> str:
    counts = "{trials} ({targets} target, {nontargets} nontarget)".format(**metrics)
    rows = [("trials", counts)]
    rows.append(("EER", "{eer_percent:.3f} %  at {eer_threshold:.6g}".format(**metrics)))
    for p, cost in metrics["min_dcf"].items():
        rows.append((f"minDCF({p})", f"{cost:.4f}  at {metrics['min_dcf_threshold'][p]:.6g}"))
    for p, cost in metrics.get("act_dcf", {}).items():
        rows.append((f"actDCF({p})", f"{cost:.4f}"))
    if "cllr" in metrics:
        rows.append(("Cllr", f"{metrics['cllr']:.4f} bits"))
    return "\n".join(f"{name:14}{value}" for name, value in rows)


if __name__ == "__main__":
    sys.exit(run("sv.bin.compute_metrics", main))
