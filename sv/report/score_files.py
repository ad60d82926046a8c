"""Read what stage 7 left of each trial list: metrics, DET curve, replicates, histogram."""

from pathlib import Path
from typing import Any

from sv.errors import SvError
from sv.report.fields import (
    read_object,
    take_number,
    take_part,
    take_required,
    take_text,
    take_whole,
)
from sv.report.records import Bootstrap, Det, Histogram, Score

# Files beside the metrics, <name>.json.
_BESIDE = (".det.json", ".boot.json", ".hist.json")


def read_scores(directory: Path) -> tuple[Score, ...]:
    """Read the metrics of a model's folder ``scores``, and what lies beside each of them."""
    found = sorted(directory.glob("*.json"))
    return tuple(_read_score(path) for path in found if not path.name.endswith(_BESIDE))


def _read_score(path: Path) -> Score:
    record = read_object(path)
    costs = take_part(record, "min_dcf", dict, path)
    numbers = {key: take_number(costs, key, path) for key in costs}
    intervals = take_part(record, "min_dcf_interval", dict, path)
    bounds = {key: _take_interval(intervals, key, path) for key in intervals}
    threshold = record.get("eer_threshold")
    det, boot, histogram = (path.with_name(f"{path.stem}{end}") for end in _BESIDE)
    return Score(
        path=path,
        trials_name=take_text(record, "trials_name", path),
        data_set=take_text(record, "data_set", path),
        backend=take_text(record, "backend", path),
        precision=take_text(record, "precision", path),
        untrained=bool(record.get("untrained", False)),
        trials=take_whole(record, "trials", path),
        targets=take_whole(record, "targets", path),
        nontargets=take_whole(record, "nontargets", path),
        eer_percent=take_required(record, "eer_percent", path),
        eer_threshold=threshold if isinstance(threshold, int | float) else None,
        min_dcf={key: value for key, value in numbers.items() if value is not None},
        eer_interval=_take_interval(record, "eer_percent_interval", path),
        min_dcf_interval={key: pair for key, pair in bounds.items() if pair is not None},
        det=_read_det(det) if det.is_file() else None,
        bootstrap=_read_bootstrap(boot, record["eer_percent"]) if boot.is_file() else None,
        histogram=_read_histogram(histogram) if histogram.is_file() else None,
        backend_parameters=take_part(record, "backend_parameters", dict, path),
    )


def _take_interval(record: dict[str, Any], key: str, path: Path) -> tuple[float, float] | None:
    pair = take_part(record, key, list, path)
    if not pair:
        return None
    bounds = dict(zip(("low", "high"), pair, strict=False))
    low, high = (take_required(bounds, end, path) for end in ("low", "high"))
    if len(pair) != 2 or low > high:
        raise SvError(f"{path}: {key} is {pair}, expected [low, high]")
    return low, high


def _read_det(path: Path) -> Det:
    record = read_object(path)
    p_fa, p_miss = (_take_rates(record, key, path) for key in ("p_fa", "p_miss"))
    if len(p_fa) != len(p_miss) or not p_fa:
        raise SvError(f"{path}: p_fa and p_miss must have the same number of points")
    return Det(p_fa, p_miss)


def _take_rates(record: dict[str, Any], key: str, path: Path) -> tuple[float, ...]:
    points = take_part(record, key, list, path)
    for point in points:
        if not isinstance(point, int | float) or not 0 <= point <= 1:
            raise SvError(f"{path}: {key} holds {point!r}, expected rates from 0 to 1")
    return tuple(float(point) for point in points)


def _read_bootstrap(path: Path, eer_percent: float) -> Bootstrap | None:
    """Read the replicates; None where they are of other scores than the metrics beside them."""
    record = read_object(path)
    of_eer_percent = take_required(record, "of_eer_percent", path)
    if abs(of_eer_percent - eer_percent) > 1e-3:  # written scores have 7 digits
        return None
    count = take_whole(record, "replicates", path)
    costs = take_part(record, "min_dcf", dict, path)
    det = take_part(record, "det", dict, path)
    rates = [_take_rates(det, key, path) for key in ("p_fa", "p_miss_low", "p_miss_high")]
    if len({len(points) for points in rates}) > 1:
        raise SvError(f"{path}: the rates of det must have the same number of points")
    return Bootstrap(
        (take_text(record, "trials_digest", path), take_whole(record, "seed", path), count),
        take_whole(record, "speakers", path),
        _take_replicates(record, "eer_percent", count, path),
        {key: _take_replicates(costs, key, count, path) for key in costs},
        *rates,
    )


def _take_replicates(
    record: dict[str, Any], key: str, count: int, path: Path
) -> tuple[float | None, ...]:
    values = take_part(record, key, list, path)
    good = all(value is None or isinstance(value, int | float) for value in values)
    if len(values) != count or not good:
        raise SvError(f"{path}: {key} is not a list of {count} numbers")
    return tuple(values)


def _read_histogram(path: Path) -> Histogram:
    record = read_object(path)
    lists = {key: take_part(record, key, list, path) for key in ("edges", "targets", "nontargets")}
    if not all(isinstance(value, int | float) for values in lists.values() for value in values):
        raise SvError(f"{path}: edges, targets and nontargets must be lists of numbers")
    bins = len(lists["edges"]) - 1
    if bins < 1 or {len(lists["targets"]), len(lists["nontargets"])} != {bins}:
        raise SvError(f"{path}: there must be one edge more than targets and nontargets")
    return Histogram(**{key: tuple(values) for key, values in lists.items()})
