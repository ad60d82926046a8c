"""Score a trial list by every backend; write scores, metrics, intervals, DET and histogram."""

import functools
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow

from sv.bin.cli import Parser, positive_int, run, whole_file
from sv.config import read_config
from sv.energy.journal import MARKS_VARIABLE, write_mark
from sv.errors import UsageError
from sv.jobs.completion import take_prints
from sv.kaldi.trials import read_models, read_trials, write_scores
from sv.score.backends import Scorer, read_cohort, read_embeddings, read_info
from sv.score.bootstrap import resample
from sv.score.config import BACKENDS, NEED_COHORT, ScoreConfig
from sv.score.metrics import compute_error_curve, compute_histogram, measure_curve, thin_curve
from sv.score.record import ScoredList, describe, write_scored_list
from sv.score.trials import match_embeddings, read_speakers


def main(argv: Sequence[str] | None = None) -> int:
    """Write ``<scores-dir>/<trials>_<backend><suffix>.txt``, its metrics and what goes with them.

    Each backend is a phase of the meter.
    """
    parser = Parser(__doc__)
    parser.add_argument("--backends", help=f"of {', '.join(BACKENDS)} (those of the config)")
    parser.add_argument("--cohort", type=Path, help="xvector.scp, info.json, utt2spk of a cohort")
    parser.add_argument("--config", type=Path, help="conf/score.toml (its defaults)")
    parser.add_argument("--num-threads", type=positive_int, default=1, help="CPU threads")
    parser.add_argument("--suffix", default="", help="of the names of the results: _bf16")
    parser.add_argument(
        "--utt2spk", type=whole_file, help="speakers of the list: intervals, histogram"
    )
    parser.add_argument("xvector_dir", type=Path, help="holds xvector.scp and info.json")
    parser.add_argument("trials", type=whole_file, help="lines: enrol test target|nontarget")
    parser.add_argument("scores_dir", type=Path, help="folder of the results")
    args = parser.parse_args(argv)
    config = read_config(args.config, ScoreConfig) if args.config else ScoreConfig()
    backends = config.backends if args.backends is None else tuple(args.backends.split())
    try:
        config = replace(config, backends=backends)
    except ValueError as error:
        raise UsageError(f"--backends: {error}") from error
    if config.needs_cohort and not args.cohort:
        needing = next(name for name in backends if name in NEED_COHORT)
        raise UsageError(f"backend {needing} needs --cohort")
    pyarrow.set_cpu_count(args.num_threads)
    info = read_info(args.xvector_dir)
    cohort = read_cohort(args.cohort, info) if config.needs_cohort else None
    trials, models = read_trials(args.trials), read_models(args.trials)
    vectors = match_embeddings(trials, *read_embeddings(args.xvector_dir), models)
    scorer = Scorer(trials, vectors, cohort, config.top_n, args.num_threads)
    speakers = functools.cache(functools.partial(read_speakers, args.trials, args.utt2spk))
    marks = os.environ.get(MARKS_VARIABLE)
    for backend in backends:
        write_mark(marks, "phase", name=backend)
        path = args.scores_dir / f"{args.trials.name}_{backend}{args.suffix}.json"
        scores, parameters = scorer.score(backend)
        before = take_prints({backend: path.with_suffix(".txt")})
        written = write_scores(path.with_suffix(".txt"), trials, scores)
        if take_prints({backend: path.with_suffix(".txt")}) != before:
            # The same scores again would be nothing new, where their embeddings are the old ones.
            write_mark(marks, "scored", backend=backend)
        curve = compute_error_curve(scores, trials.is_target)
        metrics, bootstrap, histogram = measure_curve(curve), None, None
        if args.utt2spk:
            metrics, bootstrap = resample(
                metrics, trials, scores, speakers, config, threads=args.num_threads
            )
            histogram = compute_histogram(written, trials.is_target)
        record = ScoredList(
            **vars(metrics),
            trials_name=args.trials.name,
            data_set=info["data_set"],
            backend=backend,
            backend_parameters=parameters,
            precision=info["precision"],
            untrained=info.get("untrained", False),
            path=path,
            det=thin_curve(curve),
            bootstrap=bootstrap,
            histogram=histogram,
        )
        write_scored_list(record)
        logging.info(describe(record))
    return 0


if __name__ == "__main__":
    sys.exit(run("sv.bin.score_trials", main))
