"""The settings of stages 2 to 4 and of a training's crops, as conf/*.toml has them.

They are apart from what they set, so that run.sh checks them before stage 0 without loading torch.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from sv.config import Minimum, build_record
from sv.errors import SvError
from sv.files import read_object

SAMPLE_RATE_HZ = 16000  # of every corpus of the study
MAX_SAMPLES = 24 * 3600 * SAMPLE_RATE_HZ  # of an utterance: a header may claim anything
FRONT_END = "features.json"  # the resolved `FbankConfig`, next to the archives
KINDS = ("babble", "music", "noise", "reverb")  # of augmented copies


@dataclass(frozen=True)
class FbankConfig:
    """conf/features.toml: the front end, and how its output is stored."""

    num_mel_bins: Annotated[int, Minimum(4)] = 80  # torchaudio's least
    use_energy: bool = True
    low_freq_hz: float = 20.0
    high_freq_hz: float = 7600.0
    frame_length_ms: Annotated[float, Minimum(1)] = 25.0
    frame_shift_ms: Annotated[float, Minimum(1)] = 10.0
    mean_norm: bool = True
    compression: Literal["two-byte", "one-byte", "none"] = "two-byte"

    def __post_init__(self) -> None:
        """Check the range of frequencies."""
        if not 0 <= self.low_freq_hz < self.high_freq_hz <= SAMPLE_RATE_HZ / 2:
            raise ValueError("0 <= low_freq_hz < high_freq_hz <= 8000 is needed")

    @property
    def dim(self) -> int:
        """Features of a frame: the log-energy, if used, then the mel bins."""
        return self.num_mel_bins + int(self.use_energy)

    @property
    def item_bytes(self) -> int:
        """Bytes of a stored value."""
        return {"one-byte": 1, "two-byte": 2, "none": 4}[self.compression]


def read_front_end(tables: Mapping[str, Mapping[str, str]]) -> dict[str, Any] | None:
    """Return the resolved config of several feats.scp; each is judged by its first archive.

    ``tables`` has for each its name, for the message, and utterance to ``ark:offset``. None: the
    archives have none (features made by another program).

    Raises:
        SvError: Two of them were made by different front ends.
    """
    found: dict[str, dict[str, Any] | None] = {}
    for name, table in tables.items():
        path = Path(next(iter(table.values())).rpartition(":")[0]).parent / FRONT_END
        found[name] = read_object(path) if os.path.isfile(path) else None  # or it can be no path
    (first, front_end), *others = found.items()
    for name, other in others:
        if other != front_end:
            raise SvError(
                f"features of '{first}' and '{name}' differ in {FRONT_END}; do stage 3 again"
            )
    return front_end


def list_front_end_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """List the settings in which two resolved front ends differ, as ``key: old -> new``.

    One that was kept before there was a setting had its default; how archives are stored is none.
    """
    old, new = (asdict(build_record(each, FbankConfig, where=FRONT_END)) for each in (old, new))
    return [
        f"{key}: {old[key]} -> {new[key]}"
        for key in old
        if old[key] != new[key] and key != "compression"
    ]


@dataclass(frozen=True)
class MixConfig:
    """How a kind is mixed in: signal-to-noise range in dB, and how many sources at once."""

    snr_db: tuple[float, ...]
    sources: tuple[Annotated[int, Minimum(1)], ...] = (1, 1)

    def __post_init__(self) -> None:
        """Check that both are ranges."""
        for name, pair in (("snr_db", self.snr_db), ("sources", self.sources)):
            if len(pair) != 2 or pair[0] > pair[1]:
                raise ValueError(f"{name} must be [lowest, highest], not {list(pair)}")


@dataclass(frozen=True)
class AugmentConfig:
    """conf/augment.toml: the seed and a table for each additive kind."""

    seed: int
    babble: MixConfig
    music: MixConfig
    noise: MixConfig


@dataclass(frozen=True)
class TrainingSetConfig:
    """The [set] table of conf/train.toml: what is trained on and what is held out.

    Held-out utterances are of training speakers; every pair of them is a validation trial.
    """

    min_frames: Annotated[int, Minimum(1)]
    min_utterances: int
    valid_speakers: Annotated[int, Minimum(2)]
    valid_utterances: Annotated[int, Minimum(2)]
    seed: Annotated[int, Minimum(0)]

    def __post_init__(self) -> None:
        """Check that speakers keep some utterances to train on."""
        if self.min_utterances <= self.valid_utterances:
            raise ValueError("min_utterances must be greater than valid_utterances")


@dataclass(frozen=True)
class SpecAugmentConfig:
    """The [specaugment] table of conf/train.toml.

    Masks of 0 to ``time_width`` frames and 0 to ``frequency_width`` features, set to 0, which is
    the utterance mean. Source: Park et al., "SpecAugment", Interspeech 2019.
    """

    probability: float
    time_masks: Annotated[int, Minimum(0)]
    time_width: Annotated[int, Minimum(0)]
    frequency_masks: Annotated[int, Minimum(0)]
    frequency_width: Annotated[int, Minimum(0)]

    def __post_init__(self) -> None:
        """Check the range of the probability."""
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must be 0 to 1, not {self.probability}")
