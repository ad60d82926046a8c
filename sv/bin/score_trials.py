"""Score a trial list by embeddings; write scores, metrics and the DET curve."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow

from sv.bin.cli import Parser, positive_int, run
from sv.config import read_config
from sv.errors import UsageError
from sv.files import read_json, write_json
from sv.kaldi.archive import read_vectors
from sv.kaldi.trials import read_models, read_trials, write_scores
from sv.score.backend import score_trials
from sv.score.cohort import read_cohort
from sv.score.config import BACKENDS, NEED_COHORT, ScoreConfig
from sv.score.enrolment import append_models
from sv.score.metrics import compute_error_curve, measure_curve, thin_curve

DET_POINTS = 500  # enough for a smooth curve on paper


def main(argv: Sequence[str] | None = None) -> int:
    """Write ``<out>.txt`` (enrol test score), ``<out>.json`` (metrics) and ``<out>.det.json``."""
    parser = Parser(__doc__)
    parser.add_argument("--backend", default="cosine", help=", ".join(BACKENDS))
    parser.add_argument("--cohort", type=Path, help="xvector.scp, info.json, utt2spk of a cohort")
    parser.add_argument("--config", type=Path, help="conf/score.toml, for top_n")
    parser.add_argument("--num-threads", type=positive_int, default=1, help="CPU threads")
    parser.add_argument("xvector_dir", type=Path, help="holds xvector.scp and info.json")
    parser.add_argument("trials", type=Path, help="lines: enrol test target|nontarget")
    parser.add_argument("out", type=Path, help="path of the results without an ending")
    args = parser.parse_args(argv)
    if args.backend not in BACKENDS:
        raise UsageError(f"--backend {args.backend}: must be one of {', '.join(BACKENDS)}")
    if args.backend in NEED_COHORT and not args.cohort:
        raise UsageError(f"--backend {args.backend} needs --cohort")
    config = read_config(args.config, ScoreConfig) if args.config else ScoreConfig()
    pyarrow.set_cpu_count(args.num_threads)
    info = read_json(args.xvector_dir / "info.json")
    cohort = read_cohort(args.cohort, info) if args.backend in NEED_COHORT else None
    trials = read_trials(args.trials)
    keys, vectors = read_vectors(args.xvector_dir / "xvector.scp")
    keys, vectors = append_models(read_models(args.trials), keys, vectors)
    scores, parameters = score_trials(
        args.backend, trials, keys, vectors,
        cohort=cohort, top_n=config.top_n, num_threads=args.num_threads,
    )  # fmt: skip
    write_scores(Path(f"{args.out}.txt"), trials, scores)
    curve = compute_error_curve(scores, trials.is_target)
    metrics = measure_curve(curve)
    p_fa, p_miss = thin_curve(curve, DET_POINTS)
    write_json(Path(f"{args.out}.det.json"), {"p_fa": p_fa, "p_miss": p_miss})
    what = {
        "trials_name": args.trials.name,
        "data_set": info["data_set"],
        "backend": args.backend,
        "backend_parameters": parameters,
        "precision": info["precision"],
        "untrained": info.get("untrained", False),
    }
    write_json(Path(f"{args.out}.json"), {**what, **metrics})
    logging.info(
        "%s: EER %.2f %%, minDCF(0.01) %.3f, %d trials, %s", args.trials.name,
        metrics["eer_percent"], metrics["min_dcf"]["0.01"], metrics["trials"], args.backend,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(run("sv.bin.score_trials", main))
