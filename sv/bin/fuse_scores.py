"""Fuse the scores of several systems on one list: their mean, or weights from another list."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from sv.bin.cli import Parser, run, true_or_false
from sv.score.calibration import apply_calibration
from sv.score.fusion import read_systems, train_on_list, write_results


def main(argv: Sequence[str] | None = None) -> int:
    """Write ``<out>.txt`` (enrol test score) and ``<out>.json`` (metrics, weights and offset)."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--dev-trials", type=Path, help="development list: logistic regression instead of the mean"
    )
    parser.add_argument("--dev-scores", default="", help="its scores, as many, in quotes")
    parser.add_argument("--p-target", type=float, default=0.01, help="prior to train for")
    parser.add_argument(
        "--allow-shared", type=true_or_false, default=False,
        help="true: also if trials are in both lists (what is measured is then too good)",
    )  # fmt: skip
    parser.add_argument("trials", type=Path, help="list to fuse on")
    parser.add_argument("scores", type=Path, nargs="+", help="of each system")
    parser.add_argument("out", type=Path, help="path of the results without an ending")
    args = parser.parse_args(argv)
    if not 0 < args.p_target < 1:
        parser.error(f"--p-target must be between 0 and 1, not {args.p_target}")
    dev_scores = [Path(word) for word in args.dev_scores.split()]
    if len(dev_scores) != (len(args.scores) if args.dev_trials else 0):
        parser.error(
            f"{len(args.scores)} systems to fuse, but --dev-scores names {len(dev_scores)}"
            f"{'' if args.dev_trials else ' and there is no --dev-trials'}"
        )
    trials, scores = read_systems(args.trials, args.scores)
    fused, record = scores.mean(axis=1), None
    if args.dev_trials:
        calibration, record = train_on_list(
            args.dev_trials, dev_scores, trials,
            p_target=args.p_target, allow_shared=args.allow_shared,
        )  # fmt: skip
        fused = apply_calibration(calibration, scores)
        weights = ", ".join(f"{weight:.4g}" for weight in calibration.weights)
        logging.info("weights %s; offset %.4g", weights, calibration.offset)
    metrics = write_results(
        args.out, trials, fused, backend="fused", calibration=record, systems=args.scores
    )
    logging.info(
        "%s: EER %.2f %%, minDCF(0.01) %.3f, %d systems",
        args.trials.name, metrics["eer_percent"], metrics["min_dcf"]["0.01"], len(args.scores),
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(run("sv.bin.fuse_scores", main))
