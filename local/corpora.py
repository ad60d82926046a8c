"""conf/corpora.toml: which corpora a recipe is made of, and where they lie."""

from dataclasses import dataclass
from pathlib import Path

from sv.config import read_config
from sv.data.augment import KINDS
from sv.errors import UsageError


@dataclass(frozen=True)
class SpeechConfig:
    """A speech corpus: local/prepare_<name>.py finds it at ``path`` below the corpora folder."""

    path: str


@dataclass(frozen=True)
class CorporaConfig:
    """The whole file.

    ``train`` is the data set that is augmented and trained on; ``trials`` maps each trial list to
    the data set of its utterances; ``augment`` maps a kind (babble, music, noise, reverb) to
    folders of recordings or impulse responses. ``root`` is where the corpora lie when --corpora
    is not given; ``make`` names a program local/make_<name>.py that makes them.
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
