"""The record of a scored trial list: what stage 7 writes and tables, figures and advice read.

A list scored by one backend at one precision is ``<name>.json`` (metrics and their intervals) with
``<name>.det.json``, ``.boot.json`` and ``.hist.json`` next to it, each of which may be absent. A
figure that is not known is None. Only the standard library is imported, so that whoever reads
results does not pay for numpy.
"""

import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from sv.config import FileName, Minimum, build_record
from sv.files import read_json, validate_name, write_json

Amount = Annotated[float, Minimum(0)]
Count = Annotated[int, Minimum(0)]
Interval = tuple[float, float]


class Rates:
    """Lists of error rates, 0 to 1, that belong together point by point."""

    def __post_init__(self) -> None:
        """Check the rates, and that there are as many in each list."""
        for name, rates in vars(self).items():
            if wrong := [rate for rate in rates if not 0 <= rate <= 1]:
                raise ValueError(f"{name} holds {wrong[0]!r}, expected rates from 0 to 1")
        if len({len(rates) for rates in vars(self).values()}) > 1:
            raise ValueError(f"{', '.join(vars(self))} must have the same number of points")


@dataclass(frozen=True)
class Det(Rates):
    """A DET curve, from accept all to reject all; at most 500 points."""

    p_fa: tuple[float, ...]
    p_miss: tuple[float, ...]


@dataclass(frozen=True)
class DetInterval(Rates):
    """The interval of the miss rate at each rate of false alarms; empty where it is not known."""

    p_fa: tuple[float, ...] = ()
    p_miss_low: tuple[float, ...] = ()
    p_miss_high: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """The measures of every replicate of a list; None where one drew no such trials.

    ``of_eer_percent`` is the EER of the scores that were resampled. ``undefined`` replicates drew
    no target or no nontarget trial.
    """

    trials_digest: str
    unit: str = "speaker"
    speakers: Count
    seed: Count
    replicates: Count
    undefined: Count = 0
    of_eer_percent: Amount
    eer_percent: tuple[float | None, ...]
    min_dcf: dict[str, tuple[float | None, ...]]
    det: DetInterval = field(default_factory=DetInterval)

    def __post_init__(self) -> None:
        """Check that every measure has a value for each replicate."""
        measures = {f"min_dcf.{p}": values for p, values in self.min_dcf.items()}
        for name, values in {"eer_percent": self.eer_percent, **measures}.items():
            if len(values) != self.replicates:
                raise ValueError(f"{name} has {len(values)} values, not {self.replicates}")

    @property
    def draws(self) -> tuple[str, int, int]:
        """What must be the same for the replicates of two systems to be paired."""
        return self.trials_digest, self.seed, self.replicates


@dataclass(frozen=True)
class Resampling:
    """How the intervals were made, or the ``reason`` why there are none."""

    unit: str | None = None
    speakers: int | None = None
    replicates: int | None = None
    undefined: int | None = None
    seed: int | None = None
    confidence_percent: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Histogram:
    """Trials of each kind between neighbouring ``edges`` of the scores."""

    edges: tuple[float, ...]
    targets: tuple[int, ...]
    nontargets: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check that there is a count of each kind for every bin."""
        bins = len(self.edges) - 1
        if bins < 1 or (len(self.targets), len(self.nontargets)) != (bins, bins):
            raise ValueError("there must be one edge more than targets and nontargets")


@dataclass(frozen=True)
class Calibration:
    """The calibration of a list's scores: llr = ``weights`` . scores + ``offset``.

    ``p_target`` is the prior it was trained for. ``shared_trials`` of the list are in the
    development list too: measures are then better than those of unseen speech.
    """

    weights: tuple[float, ...]
    offset: float
    p_target: float
    dev_trials: str
    dev_trials_digest: str
    dev_targets: int
    dev_nontargets: int
    shared_trials: int


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What was scored and how; ``backend_parameters`` are the backend's resolved settings."""

    trials_name: FileName
    data_set: FileName
    backend: FileName
    backend_parameters: dict[str, int] = field(default_factory=dict)
    precision: FileName
    untrained: bool = False


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """The measures of a list (`sv.score.metrics`); dicts are by target prior.

    Only scores that are log-likelihood ratios have ``act_dcf`` and ``cllr`` (bits). Intervals are
    (low, high), None where unknown. ``systems`` are the score files that were calibrated.
    """

    trials: Count
    targets: Count
    nontargets: Count
    eer_percent: Amount
    eer_threshold: float | None = None
    min_dcf: dict[str, Amount]
    min_dcf_threshold: dict[str, float] = field(default_factory=dict)
    act_dcf: dict[str, float] | None = None
    cllr: float | None = None
    eer_percent_interval: Interval | None = None
    min_dcf_interval: dict[str, Interval | None] | None = None
    resampling: Resampling | None = None
    calibration: Calibration | None = None
    systems: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check the intervals."""
        pairs = {f"min_dcf_interval.{p}": pair for p, pair in (self.min_dcf_interval or {}).items()}
        for name, pair in {"eer_percent_interval": self.eer_percent_interval, **pairs}.items():
            if pair is not None and (len(pair) != 2 or not 0 <= pair[0] <= pair[1] < math.inf):
                raise ValueError(f"{name} is {list(pair)}, expected [low, high]")


@dataclass(frozen=True, kw_only=True)
class ScoredList(Metrics, Origin):
    """One trial list, one backend, one precision.

    ``path`` is the metrics file; ``det``, ``bootstrap`` and ``histogram`` are the files next to it.
    """

    path: Path = Path()
    det: Det | None = None
    bootstrap: Bootstrap | None = None
    histogram: Histogram | None = None


# The files next to a metrics file, <name>.json: attribute of a ScoredList, ending, content.
PARTS: dict[str, tuple[str, type]] = {
    "det": (".det.json", Det),
    "bootstrap": (".boot.json", Bootstrap),
    "histogram": (".hist.json", Histogram),
}
_INTERVALS = ("eer_percent_interval", "min_dcf_interval")
_SAME_EER = 1e-3  # percent: written scores have 7 digits


def read_scores(directory: Path) -> tuple[ScoredList, ...]:
    """Read every scored list of a model's folder ``scores``.

    Raises:
        SvError: See `read_scored_list`.
    """
    found = sorted(directory.glob("*.json"))
    endings = tuple(ending for ending, _ in PARTS.values())
    return tuple(read_scored_list(path) for path in found if not path.name.endswith(endings))


def read_scored_list(path: Path) -> ScoredList:
    """Read a metrics file and what lies next to it.

    Raises:
        SvError: A file is broken; the message names it and the field.
    """
    validate_name(path.name, f"{path.parent}: the list")
    values = read_json(path)
    if isinstance(values, dict):
        values["resampling"] = values.pop("bootstrap", None)
    record = build_record(values, ScoredList, where=str(path))
    parts: dict[str, Any] = {}
    for name, (ending, cls) in PARTS.items():
        near = path.with_name(f"{path.stem}{ending}")
        parts[name] = (
            build_record(read_json(near), cls, where=str(near)) if near.is_file() else None
        )
    boot = parts["bootstrap"]
    if boot and abs(boot.of_eer_percent - record.eer_percent) > _SAME_EER:
        parts["bootstrap"] = None
    return replace(record, path=path, **parts)


def write_scored_list(record: ScoredList) -> None:
    """Write the metrics to ``record.path`` and each part next to it.

    A part that is None is removed if an earlier run left it there.
    """
    for name, (ending, _) in PARTS.items():
        near = record.path.with_name(f"{record.path.stem}{ending}")
        part = getattr(record, name)
        if part is None:
            near.unlink(missing_ok=True)
        else:
            write_json(near, asdict(part))
    write_json(record.path, format_metrics(record))


def format_metrics(record: Metrics) -> dict[str, Any]:
    """Return what a metrics file holds: the known fields, without those of other files.

    Intervals that could not be computed are null; those that were not asked for are absent.
    """
    aside = ("path", "resampling", *_INTERVALS, *PARTS)
    values = asdict(record)
    known = {key: v for key, v in values.items() if v is not None and key not in aside}
    if resampling := values["resampling"]:
        known |= {name: values[name] for name in _INTERVALS}
        known["bootstrap"] = {key: v for key, v in resampling.items() if v is not None}
    return known


def describe(record: ScoredList) -> str:
    """Return a line for the log and the terminal: EER, minDCF, backend, interval."""
    sure = "" if record.resampling is None else f", {describe_interval(record)}"
    return (
        f"{record.trials_name}: EER {record.eer_percent:.2f} %, minDCF(0.01) "
        f"{record.min_dcf['0.01']:.3f}, {record.trials} trials, {record.backend}{sure}"
    )


def describe_interval(metrics: Metrics) -> str:
    """Return the interval of the EER in words, or why there is none."""
    resampling, interval = metrics.resampling or Resampling(), metrics.eer_percent_interval
    if resampling.reason:
        return f"no interval: {resampling.reason}"
    known = "unknown" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"
    return f"95 % interval of the EER {known}, {resampling.speakers} speakers"
