"""Score a trial list by the cosine of embeddings; write scores, metrics and the DET curve."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from sv.bin.cli import Parser, run
from sv.files import read_json, write_json
from sv.kaldi.archive import read_vectors
from sv.kaldi.trials import read_trials, write_scores
from sv.score.cosine import score_cosine
from sv.score.metrics import compute_error_curve, compute_metrics, thin_curve

DET_POINTS = 500  # enough for a smooth curve on paper


def main(argv: Sequence[str] | None = None) -> int:
    """Write ``<out>.txt`` (enrol test score), ``<out>.json`` (metrics) and ``<out>.det.json``."""
    parser = Parser(__doc__)
    parser.add_argument("xvector_dir", type=Path, help="holds xvector.scp and info.json")
    parser.add_argument("trials", type=Path, help="lines: enrol test target|nontarget")
    parser.add_argument("out", type=Path, help="path of the results without an ending")
    args = parser.parse_args(argv)
    info = read_json(args.xvector_dir / "info.json")
    trials = read_trials(args.trials)
    keys, vectors = read_vectors(args.xvector_dir / "xvector.scp")
    scores = score_cosine(trials, keys, vectors)
    write_scores(Path(f"{args.out}.txt"), trials, scores)
    # The metrics are of the unrounded scores.
    metrics = compute_metrics(scores, trials.is_target)
    p_fa, p_miss = thin_curve(compute_error_curve(scores, trials.is_target), DET_POINTS)
    write_json(Path(f"{args.out}.det.json"), {"p_fa": p_fa, "p_miss": p_miss})
    what = {
        "trials_name": args.trials.name,
        "data_set": info["data_set"],
        "backend": "cosine",
        "precision": info["precision"],
        "untrained": info.get("untrained", False),
    }
    write_json(Path(f"{args.out}.json"), {**what, **metrics})
    logging.info(
        "%s: EER %.2f %%, minDCF(0.01) %.3f, %d trials",
        args.trials.name, metrics["eer_percent"], metrics["min_dcf"]["0.01"], metrics["trials"],
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(run("sv.bin.score_trials", main))
