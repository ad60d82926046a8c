"""Read everything that stages 0 to 7 left behind; a file that is not as agreed is an error.

Absent files are no error here (the tables say what is missing); broken ones are, in one line that
names the file, because a guess about a broken figure is worse than no table.
"""

import math
import re
from pathlib import Path
from typing import Any

from sv.energy.sidecar import SCHEMA
from sv.errors import SvError
from sv.files import read_json, read_text
from sv.model_name import parse_model_name
from sv.report.records import (
    Carbon,
    Channel,
    Det,
    Extraction,
    Results,
    Score,
    StageEnergy,
    System,
    find_score,
    system_order,
)

_SIDECAR = re.compile(r"(?P<stage>\d\d)_(?P<name>.+)\.json")
_STATUS = ("complete", "failed", "interrupted")


def collect_results(data: Path, exp: Path, models: list[str] | None = None) -> Results:
    """Read the model folders under ``exp`` and the shared sidecars under ``data``.

    Args:
        data: The recipe's data folder (``energy/``, ``test_trials``).
        exp: The recipe's exp folder.
        models: Names to report, also those that have no folder yet; None: every folder with a
            model.json or an energy sidecar.

    Raises:
        SvError: A file is not as agreed, or there is nothing at all to report.
        UsageError: One of ``models`` has no folder and is no model name.
    """
    names = models if models else _list_models(exp)
    for name in names:
        if not (exp / name).is_dir():
            parse_model_name(name)  # a model not yet trained is missing; a mistyped one is refused
    systems = tuple(read_system(exp / name) for name in sorted(set(names), key=system_order))
    if not any(system.network or system.stages or system.scores for system in systems):
        raise SvError(f"no results under {exp}: run stages 5 to 7 first")
    shared = (*_read_sidecars(data / "energy"), *_read_sidecars(exp / "energy"))
    sets = _read_test_trials(data / "test_trials")
    # In the order of the recipe's conf/corpora.toml, then lists that it no longer has, by name.
    scores = [score for system in systems for score in system.scores]
    for score in sorted(scores, key=lambda score: score.trials_name):
        sets.setdefault(score.trials_name, score.data_set)
    scored = tuple(name for name in sets if any(find_score(s, name) for s in systems))
    # Not exp/energy: the journal of stage 8 is being written now.
    folders = [data / "energy", *(system.directory / "energy" for system in systems)]
    journals = tuple(path for folder in folders for path in _list_journals(folder))
    return Results(data, exp, systems, shared, sets, scored, journals)


def read_system(directory: Path) -> System:
    """Read one model folder; each part may be absent."""
    path = directory / "model.json"
    network = None
    if path.is_file():
        network = _read_object(path)
        for key in ("parameters", "parameters_with_head"):
            _required(network, key, path)
    scores = [
        _read_score(file)
        for file in sorted((directory / "scores").glob("*.json"))
        if not file.name.endswith(".det.json")
    ]
    infos = sorted(directory.glob("xvectors_*/info.json"))
    return System(
        name=directory.name,
        directory=directory,
        network=network,
        stages=_read_sidecars(directory / "energy"),
        extractions=tuple(_read_extraction(info) for info in infos),
        scores=tuple(scores),
    )


def _list_models(exp: Path) -> list[str]:
    if not exp.is_dir():
        return []
    return [
        folder.name
        for folder in exp.iterdir()
        if (folder / "model.json").is_file() or any((folder / "energy").glob("[0-9][0-9]_*.json*"))
    ]


def _read_test_trials(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    sets = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.split()
        if len(words) != 2:
            raise SvError(f"{path}: line {number} is not '<trials-name> <data-set>'")
        sets[words[0]] = words[1]
    return sets


def _read_sidecars(directory: Path) -> tuple[StageEnergy, ...]:
    found = [file for file in sorted(directory.glob("*.json")) if _SIDECAR.fullmatch(file.name)]
    return tuple(_read_sidecar(file) for file in found)


def _list_journals(directory: Path) -> list[Path]:
    """List the journals of stages that have no sidecar."""
    suffix = ".journal.jsonl"
    found = sorted(directory.glob(f"*{suffix}"))
    return [p for p in found if not p.with_name(p.name.removesuffix(suffix) + ".json").is_file()]


def _read_sidecar(path: Path) -> StageEnergy:
    record = _read_object(path)
    if record.get("schema") != SCHEMA:
        raise SvError(f"{path}: schema is {record.get('schema')!r}, expected '{SCHEMA}'")
    match = _SIDECAR.fullmatch(path.name)
    assert match  # the caller lists only such names
    status = _text(record, "status")
    if status not in _STATUS:
        raise SvError(f"{path}: status is '{status}', expected one of {', '.join(_STATUS)}")
    fraction = _number(record, "measured_fraction", path)
    if fraction is not None and fraction > 1 + 1e-9:
        raise SvError(f"{path}: measured_fraction is {fraction}, expected 0 to 1")
    carbon, pue = (_part(record, key, dict, path) for key in ("carbon", "pue"))
    return StageEnergy(
        path=path,
        stage=int(match["stage"]),
        name=match["name"],
        model=record.get("model"),
        status=status,
        exit_code=record.get("exit_code"),
        host=_text(record, "host"),
        started_utc=_text(record, "started_utc"),
        duration_s=_number(record, "duration_s", path),
        energy_kwh=_number(record, "energy_kwh", path),
        energy_all_kwh=_number(record, "energy_all_kwh", path),
        measured_fraction=fraction,
        co2_g=_number(record, "co2_g", path),
        carbon=Carbon(
            **{
                key: _text(carbon, key)
                for key in ("provider", "zone", "year", "vintage", "scope", "basis")
            },
            g_per_kwh=_number(carbon, "g_per_kwh", path),
            source=_text(carbon, "source"),
            reason=_text(carbon, "reason"),
        ),
        pue_value=_number(pue, "value", path),
        pue_source=_text(pue, "source"),
        channels=tuple(
            _build_channel(item, path) for item in _part(record, "channels", list, path)
        ),
        attempts=len(_part(record, "attempts", list, path)),
        reason=_text(record, "reason"),
    )


def _build_channel(record: Any, path: Path) -> Channel:
    if not isinstance(record, dict):
        raise SvError(f"{path}: a channel is not an object")
    source = record.get("source")
    if isinstance(source, dict):  # backend, path, name, api: the first two say it
        source = " ".join(str(source[key]) for key in ("backend", "path") if source.get(key))
    return Channel(
        **{key: _text(record, key) for key in ("id", "boundary", "kind", "method", "reason")},
        source=str(source or ""),
        energy_j=_number(record, "energy_j", path),
        in_total=bool(record.get("in_total")),
    )


def _read_score(path: Path) -> Score:
    record = _read_object(path)
    costs = _part(record, "min_dcf", dict, path)
    numbers = {key: _number(costs, key, path) for key in costs}
    det_path = path.with_name(path.stem + ".det.json")
    return Score(
        path=path,
        trials_name=_text(record, "trials_name", path),
        data_set=_text(record, "data_set", path),
        backend=_text(record, "backend", path),
        precision=_text(record, "precision", path),
        untrained=bool(record.get("untrained", False)),
        trials=_whole(record, "trials", path),
        targets=_whole(record, "targets", path),
        nontargets=_whole(record, "nontargets", path),
        eer_percent=_required(record, "eer_percent", path),
        min_dcf={key: value for key, value in numbers.items() if value is not None},
        det=_read_det(det_path) if det_path.is_file() else None,
    )


def _read_det(path: Path) -> Det:
    record = _read_object(path)
    curves = {}
    for key in ("p_fa", "p_miss"):
        points = _part(record, key, list, path)
        for point in points:
            if not isinstance(point, int | float) or not 0 <= point <= 1:
                raise SvError(f"{path}: {key} holds {point!r}, expected rates from 0 to 1")
        curves[key] = tuple(float(point) for point in points)
    if len(curves["p_fa"]) != len(curves["p_miss"]) or not curves["p_fa"]:
        raise SvError(f"{path}: p_fa and p_miss must have the same number of points")
    return Det(**curves)


def _read_extraction(path: Path) -> Extraction:
    record = _read_object(path)
    frames = _number(record, "frames", path)
    return Extraction(
        folder=path.parent.name,
        data_set=_text(record, "data_set", path),
        precision=_text(record, "precision", path),
        utterances=_whole(record, "utterances", path),
        frames=None if frames is None else int(frames),
        audio_s=_number(record, "audio_s", path),
        device=_text(record, "device"),
        untrained=bool(record.get("untrained", False)),
    )


def _read_object(path: Path) -> dict[str, Any]:
    record = read_json(path)
    if not isinstance(record, dict):
        raise SvError(f"{path}: not a JSON object")
    return record


def _number(record: dict[str, Any], key: str, path: Path) -> float | None:
    """Take a finite number of at least 0; absent and null are None."""
    return None if record.get(key) is None else _required(record, key, path)


def _required(record: dict[str, Any], key: str, path: Path) -> float:
    value = record.get(key)
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not math.isfinite(value) or value < 0:
        raise SvError(f"{path}: {key} is {value!r}, expected a number of at least 0")
    return value


def _whole(record: dict[str, Any], key: str, path: Path) -> int:
    value = _required(record, key, path)
    if value != int(value):
        raise SvError(f"{path}: {key} is {value!r}, expected a whole number")
    return int(value)


def _text(record: dict[str, Any], key: str, required_in: Path | None = None) -> str:
    """Take a text; absent and null are empty (an error where a path is given)."""
    value = record.get(key)
    if required_in is not None and (not isinstance(value, str) or not value):
        raise SvError(f"{required_in}: {key} is {value!r}, expected a text")
    return "" if value is None else str(value)


def _part(record: dict[str, Any], key: str, kind: type, path: Path) -> Any:
    value = record.get(key)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise SvError(f"{path}: {key} is not a JSON {'object' if kind is dict else 'list'}")
    return value
