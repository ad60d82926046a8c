"""Measure a score file of any toolkit against its trial list: EER, minDCF; actDCF, Cllr."""

import functools
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sv.bin.cli import Parser, positive_int, run, true_or_false, whole_file
from sv.config import read_config
from sv.kaldi.trials import find_score_columns, find_trial_columns, read_columns, read_trials
from sv.score.bootstrap import resample
from sv.score.config import ScoreConfig
from sv.score.metrics import compute_metrics
from sv.score.record import Metrics, describe_interval, format_metrics
from sv.score.trials import match_scores, read_speakers


def main(argv: Sequence[str] | None = None) -> int:
    """Print the metrics; stderr says which columns were taken for what."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--columns", help="of the list: enrol,test,label in its order; - for another column"
    )
    parser.add_argument("--score-columns", help="of the scores, as --columns: enrol,test,score")
    parser.add_argument(
        "--calibrated", type=true_or_false, default=False,
        help="true: the scores are log-likelihood ratios (natural logarithm): actDCF and Cllr too",
    )  # fmt: skip
    parser.add_argument(
        "--utt2spk", type=whole_file, help="speakers of the list: 95 %% intervals, too"
    )
    parser.add_argument("--config", type=Path, help="conf/score.toml, for bootstrap_*")
    parser.add_argument("--num-threads", type=positive_int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument(
        "trials", type=whole_file, help="a trial list, columns in any order; -: stdin"
    )
    parser.add_argument(
        "scores", type=whole_file, help="a score file, lines in any order; -: stdin"
    )
    args = parser.parse_args(argv)
    config = read_config(args.config, ScoreConfig) if args.config else ScoreConfig()
    of_trials = find_trial_columns(args.trials, args.columns)
    logging.info("%s: columns %s", args.trials, ",".join(of_trials))
    trials = read_trials(args.trials, of_trials)
    ids = set(trials.utterances)
    of_scores = find_score_columns(args.scores, ids, args.score_columns)
    logging.info("%s: columns %s", args.scores, ",".join(of_scores))
    table = read_columns(args.scores, of_scores)
    scores = match_scores(trials, table, args.scores)
    metrics = compute_metrics(scores, trials.is_target, calibrated=args.calibrated)
    if args.utt2spk:
        metrics, _ = resample(
            metrics, trials, scores, functools.partial(read_speakers, args.trials, args.utt2spk),
            config, threads=args.num_threads,
        )  # fmt: skip
    record = format_metrics(metrics)
    print(json.dumps(record, indent=1) if args.format == "json" else _format_table(metrics))
    return 0


def _format_table(metrics: Metrics) -> str:
    counts = f"{metrics.trials} ({metrics.targets} target, {metrics.nontargets} nontarget)"
    rows = [("trials", counts)]
    rows.append(("EER", f"{metrics.eer_percent:.3f} %  at {metrics.eer_threshold:.6g}"))
    if metrics.resampling is not None:
        rows.append(("", describe_interval(metrics)))
    for p, cost in metrics.min_dcf.items():
        rows.append((f"minDCF({p})", f"{cost:.4f}  at {metrics.min_dcf_threshold[p]:.6g}"))
    for p, cost in (metrics.act_dcf or {}).items():
        rows.append((f"actDCF({p})", f"{cost:.4f}"))
    if metrics.cllr is not None:
        rows.append(("Cllr", f"{metrics.cllr:.4f} bits"))
    return "\n".join(f"{name:14}{value}" for name, value in rows)


if __name__ == "__main__":
    sys.exit(run("sv.bin.compute_metrics", main))
