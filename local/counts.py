"""What is there of a corpus, beside what its makers published."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Count:
    """A number of things found; ``published`` is None where nothing was published.

    ``paths`` are the audio files that were counted, if it is them.
    """

    part: str
    what: str
    found: int
    published: int | None = None
    paths: tuple[Path, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether all that was published is there."""
        return self.published is None or self.found == self.published


def count_speakers(utterances: Iterable[str]) -> int:
    """Count the speakers of VoxCeleb or CN-Celeb utterance ids: their first 7 characters."""
    return len({utterance[:7] for utterance in utterances})
