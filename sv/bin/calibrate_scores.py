"""Turn a system's scores into log-likelihood ratios, trained on a development list."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from sv.bin.cli import Parser, run, true_or_false
from sv.score.calibration import apply_calibration
from sv.score.fusion import read_systems, train_on_list, write_results


def main(argv: Sequence[str] | None = None) -> int:
    """Write ``<out>.txt`` (enrol test llr) and ``<out>.json`` (metrics, weights and offset)."""
    parser = Parser(__doc__)
    parser.add_argument("--p-target", type=float, default=0.01, help="prior to train for")
    parser.add_argument(
        "--allow-shared", type=true_or_false, default=False,
        help="true: also if trials are in both lists (what is measured is then too good)",
    )  # fmt: skip
    parser.add_argument("dev_trials", type=Path, help="development list")
    parser.add_argument("dev_scores", type=Path, help="its scores, lines: enrol test score")
    parser.add_argument("trials", type=Path, help="list to calibrate")
    parser.add_argument("scores", type=Path, help="its scores, of the same system")
    parser.add_argument("out", type=Path, help="path of the results without an ending")
    args = parser.parse_args(argv)
    if not 0 < args.p_target < 1:
        parser.error(f"--p-target must be between 0 and 1, not {args.p_target}")
    trials, scores = read_systems(args.trials, [args.scores])
    calibration, record = train_on_list(
        args.dev_trials, [args.dev_scores], trials,
        p_target=args.p_target, allow_shared=args.allow_shared,
    )  # fmt: skip
    metrics = write_results(
        args.out, trials, apply_calibration(calibration, scores),
        backend="calibrated", calibration=record, systems=[args.scores],
    )  # fmt: skip
    logging.info(
        "%s: llr = %.4g x score %+.4g; Cllr %.4f, actDCF(0.01) %.3f, minDCF(0.01) %.3f",
        args.trials.name, calibration.weights[0], calibration.offset,
        metrics["cllr"], metrics["act_dcf"]["0.01"], metrics["min_dcf"]["0.01"],
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(run("sv.bin.calibrate_scores", main))
