"""Turn a system's scores into log-likelihood ratios, trained on a development list."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from sv.bin.cli import Parser, run, true_or_false, whole_file
from sv.files import read_object, write_json
from sv.kaldi.trials import write_scores
from sv.score.calibration import train_on_list
from sv.score.metrics import compute_metrics
from sv.score.record import Origin, format_metrics
from sv.score.trials import read_scored


def main(argv: Sequence[str] | None = None) -> int:
    """Write ``<out>.txt`` (enrol test llr) and ``<out>.json`` (metrics, weight and offset).

    What was scored is copied from the metrics of the scores (``<scores>.json``), if there are any.
    """
    parser = Parser(__doc__)
    parser.add_argument("--p-target", type=float, default=0.01, help="prior to train for")
    parser.add_argument(
        "--allow-shared", type=true_or_false, default=False,
        help="true: also if trials are in both lists (what is measured is then too good)",
    )  # fmt: skip
    parser.add_argument("dev_trials", type=whole_file, help="development list")
    parser.add_argument("dev_scores", type=whole_file, help="its scores, lines: enrol test score")
    parser.add_argument("trials", type=whole_file, help="list to calibrate")
    parser.add_argument("scores", type=whole_file, help="its scores, of the same system")
    parser.add_argument("out", type=Path, help="path of the results without an ending")
    args = parser.parse_args(argv)
    if not 0 < args.p_target < 1:
        parser.error(f"--p-target must be between 0 and 1, not {args.p_target}")
    trials, scores = read_scored(args.trials, args.scores)
    calibration = train_on_list(
        args.dev_trials, args.dev_scores, trials,
        p_target=args.p_target, allow_shared=args.allow_shared,
    )  # fmt: skip
    (weight,) = calibration.weights
    llrs = weight * scores + calibration.offset
    metrics = replace(
        compute_metrics(llrs, trials.is_target, calibrated=True),
        calibration=calibration,
        systems=(str(args.scores),),
    )
    near = args.scores.with_suffix(".json")
    found = read_object(near) if near.is_file() else {}
    origin = {field.name: found[field.name] for field in fields(Origin) if field.name in found}
    if "backend" in origin:
        origin["backend"] = f"{origin['backend']}_calibrated"
    write_scores(Path(f"{args.out}.txt"), trials, llrs)
    write_json(Path(f"{args.out}.json"), origin | format_metrics(metrics))
    logging.info(
        "%s: llr = %.4g x score %+.4g; Cllr %.4f, actDCF(0.01) %.3f, minDCF(0.01) %.3f",
        args.trials.name, weight, calibration.offset,
        metrics.cllr, metrics.act_dcf["0.01"], metrics.min_dcf["0.01"],
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(run("sv.bin.calibrate_scores", main))
