"""Say how sure a list's metrics are: bootstrap over speakers; and make its score histogram."""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sv.bin.cli import Parser, positive_int, run
from sv.config import read_config
from sv.errors import SvError
from sv.files import write_json
from sv.score.bootstrap import bootstrap_metrics
from sv.score.config import ScoreConfig
from sv.score.histogram import compute_histogram
from sv.score.interval import INTERVAL_KEYS, build_boot_record, build_intervals, read_metrics
from sv.score.scored import read_scored, read_speakers


def main(argv: Sequence[str] | None = None) -> int:
    """Write ``.hist.json`` and ``.boot.json`` beside the metrics; add the intervals to these."""
    parser = Parser(__doc__)
    parser.add_argument("--config", type=Path, help="conf/score.toml, for bootstrap_*")
    parser.add_argument("--num-threads", type=positive_int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("trials", type=Path, help="lines: enrol test target|nontarget")
    parser.add_argument("scores", type=Path, help="lines: enrol test score")
    parser.add_argument("utt2spk", type=Path, help="speaker of every utterance of the list")
    parser.add_argument("metrics", type=Path, help="<name>.json of the same scores")
    args = parser.parse_args(argv)
    config = read_config(args.config, ScoreConfig) if args.config else ScoreConfig()
    seed, count = config.bootstrap_seed, config.bootstrap_replicates
    trials, scores = read_scored(args.trials, args.scores)
    metrics = read_metrics(args.metrics, scores, trials.is_target)
    beside = args.metrics.with_suffix("")
    boot = Path(f"{beside}.boot.json")
    write_json(Path(f"{beside}.hist.json"), compute_histogram(scores, trials.is_target))
    if not count:
        boot.unlink(missing_ok=True)
        write_json(args.metrics, metrics)
        logging.info("%s: no intervals, bootstrap_replicates is 0", args.trials.name)
        return 0
    eer_percent = metrics["eer_percent"]
    try:
        replicates = bootstrap_metrics(
            trials, scores, read_speakers(args.trials, args.utt2spk),
            seed=seed, replicates=count, threads=args.num_threads,
        )  # fmt: skip
    except SvError as error:  # the measures stand; how sure they are cannot be told
        boot.unlink(missing_ok=True)
        unknown = dict.fromkeys(INTERVAL_KEYS) | {"bootstrap": {"reason": str(error)}}
        write_json(args.metrics, {**metrics, **unknown})
        name = args.trials.name
        logging.warning("%s: EER %.2f %%, no interval: %s", name, eer_percent, error)
        return 0
    intervals = build_intervals(replicates, seed=seed)
    record = build_boot_record(trials, replicates, seed=seed, eer_percent=eer_percent)
    write_json(boot, record)
    write_json(args.metrics, {**metrics, **intervals})
    interval = intervals["eer_percent_interval"]
    logging.info(
        "%s: EER %.2f %%, 95 %% interval %s, %d speakers, %d replicates",
        args.trials.name, eer_percent,
        "unknown" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}",
        replicates.speakers, count,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(run("sv.bin.compute_statistics", main))
