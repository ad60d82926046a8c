"""What the results stage knows: systems, their scores, and the energy of every stage.

Frozen records and the few look-ups that the tables and figures share. A figure that is not known
is None, and whoever shows it says why; nothing here turns it into 0.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sv.errors import UsageError
from sv.model_name import ModelName, parse_model_name
from sv.report.stage_energy import StageEnergy
from sv.score.record import ScoredList

P_TARGET = "0.01"  # minDCF of the tables: the study, section 5.1
TRAIN_STAGE, EXTRACT_STAGE, RESULTS_STAGE = 5, 6, 8
PRECISIONS = ("fp32", "fp16", "bf16")
FAMILIES = {"depth": "Depth scaling", "stage": "Stage-distribution scaling"}
FAMILIES |= {"width": "Width scaling", "other": "Other"}


@dataclass(frozen=True)
class Extraction:
    """The embeddings of one test set at one precision (info.json of ``folder``)."""

    folder: str
    data_set: str
    precision: str
    utterances: int
    frames: int | None
    audio_s: float | None
    device: str
    untrained: bool


@dataclass(frozen=True)
class System:
    """One model folder. ``network`` is the content of its model.json, None where there is none."""

    name: str
    directory: Path
    network: dict[str, Any] | None
    stages: tuple[StageEnergy, ...]
    extractions: tuple[Extraction, ...]
    scores: tuple[ScoredList, ...]


@dataclass(frozen=True)
class Results:
    """All that stage 8 found.

    ``trial_sets`` maps each trial list, in the order of the tables, to its data set. ``scored``
    are the lists for which at least one system has metrics: the averages are over these.
    ``journals`` are those of stages without a sidecar. ``remarks`` are what stage 1 said of the
    corpora, with the trial list concerned; None: all of them.
    """

    data: Path
    exp: Path
    systems: tuple[System, ...]
    shared: tuple[StageEnergy, ...]
    trial_sets: dict[str, str]
    scored: tuple[str, ...]
    journals: tuple[Path, ...]
    remarks: tuple[tuple[str | None, str], ...] = ()


@dataclass(frozen=True)
class Average:
    """Means over the scored trial lists; None with a reason where one is missing."""

    eer_percent: float | None
    min_dcf: float | None
    reason: str


def _parsed(name: str) -> ModelName | None:
    try:
        return parse_model_name(name)
    except UsageError:
        return None  # a folder that a person named: shown, after the others


def family_of(name: str) -> str:
    """Give the family of a model in the study's Table 1: depth, stage, width, or other."""
    model = _parsed(name)
    if model is None:
        return "other"
    if model.width != 1:
        return "width"
    return "stage" if "_d_" in name else "depth"


def system_order(name: str) -> tuple[Any, ...]:
    """Give the sort key that puts models in the order of the study's Table 1.

    Largest first; stage variants by the longest stage, one long stage before two, early before
    late: 8222, 2822, 2282, 2228, 2882, 2662.
    """
    rank = list(FAMILIES).index(family_of(name))
    model = _parsed(name)
    if model is None:
        return (rank, name)
    longest = max(model.blocks)
    shape = (-longest, model.blocks.count(longest), [-n for n in model.blocks])
    return (rank, -model.depth, -model.width, *shape, name)


def find_stage(system: System, stage: int, name: str) -> StageEnergy | None:
    """Find a model's stage by number and name (``6, "extract_vox1"``), or None."""
    return next((s for s in system.stages if (s.stage, s.name) == (stage, name)), None)


def extract_name(data_set: str, precision: str) -> str:
    """Name the extraction of a test set as files do: no suffix for fp32."""
    return data_set if precision == "fp32" else f"{data_set}_{precision}"


def is_of_trained(found: Extraction) -> bool:
    """Tell embeddings of the trained network, ``xvectors_<set>[_<precision>]``, from others."""
    expected = f"xvectors_{extract_name(found.data_set, found.precision)}"
    return found.folder == expected and not found.untrained


def find_extraction(system: System, data_set: str, precision: str) -> Extraction | None:
    """Find the trained network's embeddings of a test set, or None."""
    folder = f"xvectors_{extract_name(data_set, precision)}"
    return next((found for found in system.extractions if found.folder == folder), None)


def find_score(
    system: System, trials: str, precision: str = "fp32", *, untrained: bool = False
) -> ScoredList | None:
    """Find the cosine metrics of a trial list, or None."""
    wanted = (trials, precision, untrained, "cosine")
    for score in system.scores:
        if (score.trials_name, score.precision, score.untrained, score.backend) == wanted:
            return score
    return None


def compute_average(system: System, trials: tuple[str, ...], precision: str = "fp32") -> Average:
    """Average EER and minDCF of a system over trial lists; every list or no average.

    A mean over fewer lists than the other systems have would look better or worse for no reason.
    """
    if not trials:
        return Average(None, None, "no trial list has been scored")
    scores = [find_score(system, name, precision) for name in trials]
    missing = [name for name, score in zip(trials, scores, strict=True) if score is None]
    if missing:
        return Average(None, None, f"not scored on {', '.join(missing)} ({precision})")
    found = [score for score in scores if score is not None]
    eer_percent = sum(score.eer_percent for score in found) / len(found)
    costs = [score.min_dcf.get(P_TARGET) for score in found]
    known = [cost for cost in costs if cost is not None]
    if len(known) < len(costs):
        return Average(eer_percent, None, f"no minDCF at P {P_TARGET} in every list")
    return Average(eer_percent, sum(known) / len(known), "")
