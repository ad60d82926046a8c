"""Stage 1: manifests, data directories and trial lists of every speech corpus of the recipe."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from local.corpora import (
    CorporaConfig,
    Plan,
    Remark,
    find_root,
    plan_preparation,
    read_corpora_config,
    refuse_missing,
    remark_missing,
    write_remarks,
)
from local.sources import find_missing_sources
from sv.bin.cli import Parser, positive_int, run, true_or_false
from sv.errors import SvError
from sv.files import write_text
from sv.jobs.completion import marking_changes
from sv.kaldi.data_dir import (
    MAX_LISTED,
    UTTERANCE_TABLES,
    find_parted_speakers,
    find_problems,
    read_table,
    written,
)
from sv.kaldi.trials import count_repeated, describe_repeated, read_models, read_trials

WRITTEN = ("wav.scp", "utt2dur")  # with a line for each utterance
LATER = set(UTTERANCE_TABLES) - set(WRITTEN)


def main(argv: Sequence[str] | None = None) -> int:
    """Call local/prepare_<corpus>.py for each corpus, then check the data sets and lists."""
    parser = Parser(__doc__)
    parser.add_argument("--config", type=Path, required=True, help="conf/corpora.toml")
    parser.add_argument("--corpora", default="", help="the folder that holds the corpora")
    parser.add_argument("--lists", default="", help="folder of trial lists and speaker tables")
    parser.add_argument("--nj", type=positive_int, default=1, help="processes that read files")
    parser.add_argument(
        "--allow-partial", type=true_or_false, default=False, help="continue without missing parts"
    )
    parser.add_argument("data", type=Path, help="where manifests and data directories go")
    args = parser.parse_args(argv)
    config = read_corpora_config(args.config)
    root = find_root(config, args.corpora, args.config)
    settings = {"data": args.data, "nj": args.nj, "allow_partial": args.allow_partial}
    plan = plan_preparation(config, args.config, root, args.lists, **settings)
    # Sources too, though stage 2 reads them: decoding a corpus may take days.
    sources = find_missing_sources(root, config.augment)
    refuse_missing(plan.missing | sources, allow_partial=args.allow_partial)
    names = ("manifests", "trials", config.train, *config.trials.values())
    folders = {args.data / name for name in names}
    with marking_changes(*folders, kept=args.data / "audio"):
        _prepare(config, plan, args.data, allow_partial=args.allow_partial)
    return 0


def _prepare(config: CorporaConfig, plan: Plan, data: Path, *, allow_partial: bool) -> None:
    """Write all sets and lists; SvError where one of them cannot be used."""
    remarks = []
    written.clear()  # what an earlier run has left does not count
    for program, request in plan.requests.values():
        remarks += program.prepare(request)
    try:
        _check_set(data / config.train)
    except SvError as error:
        raise SvError(
            "; ".join([str(error), *(f"{k}: {v}" for k, v in plan.missing.items())])
        ) from error
    lists, missing, checked = {}, dict(plan.missing), {config.train}
    for name, data_set in config.trials.items():
        if name in missing:
            continue
        try:
            if data_set not in checked:
                _check_set(data / data_set)
                checked.add(data_set)
            remarks += _check_list(name, data, data / data_set)
        except SvError as error:
            if not allow_partial:
                raise
            missing[name] = str(error)
        else:
            lists[name] = data_set
    if config.trials and not lists:
        raise SvError(f"no trial list is left: {'; '.join(missing.values())}")
    remarks += remark_missing(missing)
    for remark in remarks:
        logging.warning("%s: %s", remark.trials, remark.text)
    write_remarks(data / "remarks.tsv", remarks)
    write_text(data / "train_set", f"{config.train}\n", keep_if_same=True)
    lines = [f"{name} {data_set}\n" for name, data_set in lists.items()]
    write_text(data / "test_trials", "".join(lines), keep_if_same=True)


def _check_set(data_dir: Path) -> None:
    """Check what this stage wrote of a set: the features of one that grew are made by stage 3.

    Raises:
        SvError: It is no valid data directory.
    """
    if data_dir not in written:
        raise SvError(f"no corpus has made its data set {data_dir.name}")
    if problems := find_problems(data_dir, require=WRITTEN, skip=LATER, spk_sort=False):
        raise SvError("; ".join(problems))
    if parted := find_parted_speakers(read_table(data_dir / "utt2spk")):
        logging.warning(
            "%s: the id of a speaker is the beginning of another's (%s): this recipe takes it, "
            "Kaldi's validate_data_dir.sh does not", data_dir.name, ", ".join(parted[:MAX_LISTED]),
        )  # fmt: skip


def _check_list(name: str, data: Path, data_dir: Path) -> list[Remark]:
    """Check that a list can be scored: it has both kinds of trial, and its set all utterances.

    Returns:
        What a reader of its results must know.

    Raises:
        SvError: It cannot.
    """
    path = data / "trials" / name
    if path not in written:
        raise SvError(f"no corpus has made the trial list {name}")
    trials, utterances = read_trials(path), read_table(data_dir / "utt2spk")
    models = read_models(path)
    known = utterances.keys() | models.keys()
    named = [*trials.utterances, *(u for model in models.values() for u in model)]
    if unknown := sorted({u for u in named if u not in known}):
        raise SvError(f"{path}: {len(unknown)} utterances are not in {data_dir}: {unknown[0]}, ...")
    total, targets = len(trials.enrol), int(trials.is_target.sum())
    if targets in (0, total):
        raise SvError(
            f"{path}: {targets} target and {total - targets} nontarget trials: both are needed; "
            "give another list, or --allow-partial true to leave this one out"
        )
    logging.info("%s: %d trials, %d of them targets", path, total, targets)
    repeated = count_repeated(trials, path)
    return [Remark(name, describe_repeated(repeated, total))] if repeated else []


if __name__ == "__main__":
    sys.exit(run("local.prepare_data", main))
