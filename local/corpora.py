"""conf/corpora.toml: which corpora a recipe is made of, and where they lie."""

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sv.config import read_config
from sv.data.augment import KINDS
from sv.errors import UsageError


@dataclass(frozen=True)
class SpeechConfig:
    """A speech corpus: local/prepare_<name>.py finds it at ``path`` below the corpora folder.

    ``lists`` is where its trial lists and speaker tables lie, if not in the corpus itself, or the
    list's own file; ``max_unmatched`` the share of a user's list that may name missing clips.
    """

    path: str
    lists: str = ""
    max_unmatched: float = 0.0


@dataclass(frozen=True)
class CorporaConfig:
    """The whole file.

    ``train`` is the data set that is augmented and trained on; ``trials`` maps each trial list to
    the data set of its utterances; ``augment`` maps a kind (babble, music, noise, reverb) to
    folders of recordings or impulse responses, or to RIRS_NOISES' lists of them. ``root`` is
    where the corpora lie when --corpora is not given; ``make`` names a program
    local/make_<name>.py that makes them.
    """

    train: str
    trials: dict[str, str]
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
    """What a preparation is asked for.

    Attributes:
        corpus: The corpus's folder.
        data: Where manifests, data directories and trial lists go.
        lists: Folder or file of its lists; the corpus's folder if nothing else was said.
        trials: Trial list -> data set, all those of the recipe.
        nj: Processes that read files.
        max_unmatched: Share of a list that may be without audio.
        allow_partial: Go on with what is there where a part is missing.
    """

    corpus: Path
    data: Path
    lists: Path
    trials: dict[str, str]
    nj: int = 1
    max_unmatched: float = 0.0
    allow_partial: bool = False


def read_corpora_config(path: Path) -> CorporaConfig:
    """Read conf/corpora.toml; errors as `sv.config.read_config`."""
    return read_config(path, CorporaConfig)


def find_root(config: CorporaConfig, corpora: str, config_path: Path) -> Path:
    """Give the folder that holds the corpora: the option, else the config's own.

    Raises:
        UsageError: Neither says it.
    """
    if not corpora and not config.root:
        raise UsageError(f"{config_path} names no place for its corpora; give --corpora DIR")
    return Path(corpora or config.root)


def find_lists(root: Path, speech: SpeechConfig, lists: str) -> Path:
    """Give where a corpus's lists lie: the config's place, else --lists, else the corpus itself."""
    if speech.lists or not lists:
        return root / (speech.lists or speech.path)
    return Path(lists)


def load_program(name: str) -> Any:
    """Import local/prepare_<name>.py: ``prepare(request)`` and perhaps ``check(request)``.

    Raises:
        UsageError: There is none.
    """
    module = f"local.prepare_{name}"
    if importlib.util.find_spec(module) is None:
        raise UsageError(f"no local/prepare_{name}.py; see docs/adding-a-corpus.md")
    return importlib.import_module(module)
