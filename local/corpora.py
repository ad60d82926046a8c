"""What a recipe's corpora are (conf/corpora.toml), and the contract of local/prepare_<name>.py.

Such a program has a function ``prepare(request)``, which returns `Remark` items, and perhaps
``check(request)``, which returns `Count` items, and ``find_missing(request)``, which says of each
trial list that is not there why, and raises SvError where the corpus is not there: it is asked
before any corpus is read. docs/adding-a-corpus.md has an example.
"""

import importlib
import importlib.util
import logging
import sys
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sv.bin.cli import Parser, run
from sv.config import FileName, read_config
from sv.data.config import KINDS
from sv.errors import SvError, UsageError
from sv.files import read_text, write_text
from sv.kaldi.data_dir import MAX_LISTED

EVERY_LIST = "*"
Rows = list[tuple[str, str, bool]]  # of a trial list: enrol, test, whether it is a target trial


@dataclass(frozen=True)
class SpeechConfig:
    """A speech corpus: local/prepare_<name>.py finds it at ``path`` below the corpora folder.

    ``kind`` names another program: "kaldi" reads a finished Kaldi data folder.
    ``lists`` is the place of its trial lists and speaker tables, if not in the corpus itself, or
    the list's own file; ``max_unmatched`` the share of a user's list that may name missing clips.
    """

    path: str
    lists: str = ""
    max_unmatched: float = 0.0
    kind: str = ""


@dataclass(frozen=True)
class CorporaConfig:
    """The whole file.

    ``train`` is the data set that is augmented and trained on; ``trials`` maps each trial list to
    the data set of its utterances; ``augment`` maps a kind (babble, music, noise, reverb) to
    folders of recordings or impulse responses, or to RIRS_NOISES' lists of them. ``root`` is the
    corpora folder when --corpora is not given; ``make`` names a program local/make_<name>.py that
    makes the corpora.
    """

    train: FileName
    trials: dict[FileName, FileName]
    speech: dict[str, SpeechConfig]
    augment: dict[str, list[str]]
    root: str = ""
    make: str = ""

    def __post_init__(self) -> None:
        """Check the kinds."""
        if unknown := self.augment.keys() - set(KINDS):
            raise ValueError(f"[augment] {sorted(unknown)[0]}: the kinds are {', '.join(KINDS)}")


@dataclass(frozen=True)
class Request:
    """Arguments of a preparation.

    Attributes:
        corpus: The corpus's folder.
        data: The data folder, for manifests, data directories and trial lists.
        lists: Folder or file of its lists; by default the corpus's folder.
        trials: Trial list -> data set, all those of the recipe.
        train: The data set that is trained on.
        nj: Processes that read files.
        max_unmatched: Share of a list that may be without audio.
        allow_partial: Continue with what is there where a part is missing.
    """

    corpus: Path
    data: Path
    lists: Path
    trials: dict[str, str]
    train: str = ""
    nj: int = 1
    max_unmatched: float = 0.0
    allow_partial: bool = False


@dataclass(frozen=True)
class Remark:
    """What a reader of the results of one trial list, or of `EVERY_LIST`, must know.

    For example that a part of the corpus is missing. Stage 8 prints it below its tables.
    """

    trials: str
    text: str


@dataclass(frozen=True)
class Count:
    """A number of things found; ``published`` is None where no number was published.

    ``paths`` are the audio files, where audio files were counted.
    """

    part: str
    what: str
    found: int
    published: int | None = None
    paths: tuple[Path, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether everything that was published is there."""
        return self.published is None or self.found == self.published


def read_corpora_config(path: Path) -> CorporaConfig:
    """Read conf/corpora.toml; errors as `sv.config.read_config`."""
    return read_config(path, CorporaConfig)


def find_root(config: CorporaConfig, corpora: str, config_path: Path) -> Path:
    """Return the folder that holds the corpora: the option, else the config's own.

    Raises:
        UsageError: Neither is given.
    """
    if not corpora and not config.root:
        raise UsageError(f"{config_path} has no root for its corpora; give --corpora DIR")
    return Path(corpora or config.root)


def find_lists(root: Path, speech: SpeechConfig, lists: str) -> Path:
    """Return the place of a corpus's lists: the config's, else --lists, else the corpus itself."""
    if speech.lists or not lists:
        return root / (speech.lists or speech.path)
    return Path(lists)


@dataclass(frozen=True)
class Plan:
    """What of a recipe's speech corpora is there, before any is read.

    Attributes:
        requests: Program and arguments of each corpus that is there; its ``trials`` are without
            the lists that are not.
        missing: What is not there, a corpus or a trial list, and why.
    """

    requests: dict[str, tuple[Any, Request]]
    missing: dict[str, str]


def plan_preparation(
    config: CorporaConfig, config_path: Path, root: Path, lists: str, **settings: Any
) -> Plan:
    """Find out which corpora and trial lists are there.

    Args:
        config: The recipe's corpora.
        config_path: Its file, for messages.
        root: The folder that holds the corpora.
        lists: The option --lists.
        settings: Further fields of the requests.

    Raises:
        UsageError: A corpus has no program, or its program does not know a list.
    """
    plan = Plan({}, {})
    for name, speech in config.speech.items():
        try:
            program = load_program(speech.kind or name)
        except UsageError as error:
            raise UsageError(f"{config_path}: [speech.{name}]: {error}") from error
        request = Request(
            corpus=root / speech.path,
            lists=find_lists(root, speech, lists),
            train=config.train,
            trials=config.trials,
            max_unmatched=speech.max_unmatched,
            **settings,
        )
        try:
            absent = getattr(program, "find_missing", _find_missing)(request)
        except UsageError:
            raise
        except SvError as error:
            plan.missing[f"speech {name}"] = str(error)
            continue
        plan.missing.update(absent)
        there = {trials: s for trials, s in config.trials.items() if trials not in absent}
        plan.requests[name] = program, replace(request, trials=there)
    return plan


def _find_missing(request: Request) -> dict[str, str]:
    """Look for the folder alone, of a corpus whose program knows no more."""
    if not request.corpus.is_dir():
        raise SvError(f"no such folder {request.corpus}")
    return {}


def refuse_missing(missing: Mapping[str, str], *, allow_partial: bool) -> None:
    """Log what is not there.

    Raises:
        SvError: Something is not there, and ``allow_partial`` is false.
    """
    lines = [f"{what}: {why}" for what, why in missing.items()]
    if lines and not allow_partial:
        raise SvError(
            f"{'; '.join(lines)}; see --corpora, or give --allow-partial true to go on without"
        )
    for line in lines:
        logging.warning("left out: %s", line)


def remark_missing(missing: Mapping[str, str]) -> list[Remark]:
    """Return what every table says of what is not there."""
    return [Remark(EVERY_LIST, f"without {what}: {why}") for what, why in missing.items()]


def load_program(name: str) -> Any:
    """Import local/prepare_<name>.py; see `find_program`."""
    return importlib.import_module(find_program(name))


def find_program(name: str) -> str:
    """Return the module of local/prepare_<name>.py.

    Raises:
        UsageError: There is none.
    """
    module = f"local.prepare_{name}"
    if not module[6:].isidentifier() or importlib.util.find_spec(module) is None:
        raise UsageError(f"no local/prepare_{name}.py; see docs/adding-a-corpus.md")
    return module


def write_remarks(path: Path, remarks: Iterable[Remark]) -> None:
    """Write remarks.tsv: trial list, tab, text; an unchanged file keeps its time."""
    lines = [f"{remark.trials}\t{remark.text}\n" for remark in remarks]
    write_text(path, "".join(lines), keep_if_same=True)


def append_remarks(path: Path, remarks: Iterable[Remark]) -> None:
    """Add remarks to a remarks.tsv."""
    lines = [f"{remark.trials}\t{remark.text}\n" for remark in remarks]
    write_text(path, read_text(path) + "".join(lines), keep_if_same=True)


def keep_scorable(
    name: str, rows: Rows, kept: Container[str], *, allow_partial: bool
) -> tuple[Rows, list[Remark]]:
    """Keep the trials whose two sides are in ``kept``.

    Args:
        name: Of the list.
        rows: Its trials.
        kept: Utterances (or enrolment models) that can be used.
        allow_partial: Continue where trials are lost.

    Returns:
        The trials, and a remark if some are lost.

    Raises:
        SvError: Trials are lost and ``allow_partial`` is false.
    """
    usable = [row for row in rows if row[0] in kept and row[1] in kept]
    lost = len(rows) - len(usable)
    if lost:
        unknown = sorted({side for row in rows for side in row[:2] if side not in kept})
        listed = ", ".join(unknown[:MAX_LISTED])
        text = (
            f"{name}: {lost} of {len(rows)} trials name files that are not there or cannot be used "
            f"({len(unknown)}: {listed})"
        )
        if not allow_partial:
            raise SvError(f"{text}; give --allow-partial true to continue without these trials")
        logging.warning(text)
    logging.info("%s: %d trials", name, len(usable))
    text = f"partial: {lost} of {len(rows)} trials without audio"
    return usable, [Remark(name, text)] if lost else []


def count_speakers(utterances: Iterable[str]) -> int:
    """Count the speakers of VoxCeleb or CN-Celeb utterance ids: their first 7 characters."""
    return len({utterance[:7] for utterance in utterances})


def main(argv: Sequence[str] | None = None) -> int:
    """Check conf/corpora.toml before anything runs: its keys, folder and programs."""
    parser = Parser(main.__doc__)
    parser.add_argument("config", type=Path, help="conf/corpora.toml")
    parser.add_argument("corpora", help="the folder that holds the corpora, or empty")
    args = parser.parse_args(argv)
    config = read_corpora_config(args.config)
    root = find_root(config, args.corpora, args.config)
    if not (config.make or root.is_dir()):
        raise UsageError(
            f"no such folder {root}; --corpora DIR names the one that holds the corpora"
        )
    for name, speech in config.speech.items():
        find_program(speech.kind or name)
    return 0


if __name__ == "__main__":
    sys.exit(run("local.corpora", main))
