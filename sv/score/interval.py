"""What replicates of a bootstrap say: intervals, and differences of two systems on one list."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sv.errors import SvError
from sv.files import read_json
from sv.kaldi.trials import Trials
from sv.score.bootstrap import DET_P_FA, Replicates
from sv.score.metrics import compute_eer, compute_error_curve

PERCENTILES = (2.5, 97.5)  # a 95 % interval
INTERVAL_KEYS = ("eer_percent_interval", "min_dcf_interval", "bootstrap")
MAX_UNDEFINED = 0.01  # of the replicates; a few speakers give draws without targets or nontargets


@dataclass(frozen=True)
class Difference:
    """How much higher system A's measure is than B's, paired over replicates.

    ``p_value`` is twice the share of the replicates on the rarer side of 0: how often a new draw
    of speakers would have turned the difference round. It says nothing of another training.
    """

    value: float
    low: float
    high: float
    p_value: float

    @property
    def within_noise(self) -> bool:
        """Tell whether the interval contains 0."""
        return self.low <= 0 <= self.high

    def as_record(self) -> dict[str, object]:
        """Give the fields, and whether it is within noise, for JSON."""
        return {**asdict(self), "within_noise": self.within_noise}


def compute_interval(replicates: np.ndarray) -> tuple[float, float] | None:
    """Give the percentile interval of a measure; None if too few replicates have one."""
    defined = replicates[~np.isnan(replicates)]
    if len(defined) < (1 - MAX_UNDEFINED) * len(replicates) or not len(defined):
        return None
    low, high = np.percentile(defined, PERCENTILES)
    return float(low), float(high)


def compute_difference(value: float, a: np.ndarray, b: np.ndarray) -> Difference:
    """Compare two systems by their replicates (of the same draws of speakers).

    Args:
        value: Measure of A minus that of B, on the list itself.
        a: (replicates,) of system A.
        b: (replicates,) of system B.

    Raises:
        SvError: Too few replicates have a measure.
    """
    both = a - b
    interval = compute_interval(both)
    if interval is None:
        raise SvError(
            f"{np.count_nonzero(np.isnan(both))} of {len(both)} replicates drew no target or no "
            "nontarget trial: the list has too few speakers"
        )
    defined = both[~np.isnan(both)]
    sides = np.mean(defined <= 0), np.mean(defined >= 0)
    # No replicate on one side does not mean never: at most once in all of them and this list.
    rarer = max(min(sides), 1 / (len(defined) + 1))
    return Difference(value, *interval, p_value=float(min(1.0, 2 * rarer)))


def compute_digest(trials: Trials) -> str:
    """Give a digest of a list: the same trials in the same order, and only these, have it."""
    digest = hashlib.sha256("\n".join(trials.utterances).encode())
    for part in (trials.enrol, trials.test, trials.is_target):
        digest.update(np.ascontiguousarray(part, dtype=np.int32).tobytes())
    return digest.hexdigest()


def build_boot_record(
    trials: Trials, replicates: Replicates, *, seed: int, eer_percent: float
) -> dict[str, object]:
    """Build what a ``.boot.json`` holds: every replicate, and the interval of the DET curve.

    Args:
        trials: The list.
        replicates: Its measures.
        seed: Of the draws.
        eer_percent: Of the list itself: shows later whether the scores are still these.
    """
    defined = replicates.p_miss[~np.isnan(replicates.eer_percent)]
    low, high = np.percentile(defined, PERCENTILES, axis=0) if len(defined) else ([], [])
    return {
        "trials_digest": compute_digest(trials),
        "unit": "speaker",
        "speakers": replicates.speakers,
        "seed": seed,
        "replicates": len(replicates.eer_percent),
        "undefined": int(np.count_nonzero(np.isnan(replicates.eer_percent))),
        "of_eer_percent": eer_percent,
        "eer_percent": _listed(replicates.eer_percent),
        "min_dcf": {p: _listed(values) for p, values in replicates.min_dcf.items()},
        "det": {
            "p_fa": DET_P_FA.tolist() if len(defined) else [],
            "p_miss_low": list(low),
            "p_miss_high": list(high),
        },
    }


def read_metrics(path: Path, scores: np.ndarray, is_target: np.ndarray) -> dict[str, Any]:
    """Read a metrics file without the intervals that an earlier run may have added.

    Raises:
        SvError: It is not that of these scores.
    """
    metrics = read_json(path)
    eer, _ = compute_eer(compute_error_curve(scores, is_target))
    found = metrics.get("eer_percent") if isinstance(metrics, dict) else None
    if not isinstance(found, int | float) or abs(found - 100 * eer) > 1e-3:
        raise SvError(f"{path}: EER {found} %, but {100 * eer} % in the scores: score again")
    return {key: value for key, value in metrics.items() if key not in INTERVAL_KEYS}


def build_intervals(replicates: Replicates, *, seed: int) -> dict[str, object]:
    """Build the keys (`INTERVAL_KEYS`) that a metrics file gets; one that is unknown is null."""
    return {
        "eer_percent_interval": compute_interval(replicates.eer_percent),
        "min_dcf_interval": {p: compute_interval(v) for p, v in replicates.min_dcf.items()},
        "bootstrap": {
            "unit": "speaker",
            "speakers": replicates.speakers,
            "replicates": len(replicates.eer_percent),
            "undefined": int(np.count_nonzero(np.isnan(replicates.eer_percent))),
            "seed": seed,
            "confidence_percent": PERCENTILES[1] - PERCENTILES[0],
        },
    }


def _listed(values: np.ndarray) -> list[float | None]:
    """Give floats with NaN as null, in fewer digits than a float has: the file is read often."""
    return [None if np.isnan(v) else float(f"{v:.9g}") for v in values]
