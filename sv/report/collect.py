"""Read everything that stages 0 to 7 left behind; a file that is not as agreed is an error.

Absent files are no error here (the tables say what is missing); broken ones are, in one line that
names the file, because a guess about a broken figure is worse than no table.
"""

import re
from pathlib import Path
from typing import Any

from sv.errors import SvError
from sv.files import read_text
from sv.model_name import check_model_name
from sv.report.fields import (
    read_object,
    read_sidecar,
    take_number,
    take_part,
    take_required,
    take_text,
    take_whole,
)
from sv.report.records import (
    Extraction,
    Results,
    System,
    find_score,
    system_order,
)
from sv.report.stage_energy import Carbon, Channel, Node, StageEnergy
from sv.score.record import read_scores

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
            check_model_name(name)  # a model not yet trained is missing; a mistyped one is refused
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
    remarks = _read_remarks(data / "remarks.tsv")
    return Results(data, exp, systems, shared, sets, scored, journals, remarks)


def read_system(directory: Path) -> System:
    """Read one model folder; each part may be absent."""
    path = directory / "model.json"
    network = None
    if path.is_file():
        network = read_object(path)
        for key in ("parameters", "parameters_with_head"):
            take_required(network, key, path)
    infos = sorted(directory.glob("xvectors_*/info.json"))
    return System(
        name=directory.name,
        directory=directory,
        network=network,
        stages=_read_sidecars(directory / "energy"),
        extractions=tuple(_read_extraction(info) for info in infos),
        scores=read_scores(directory / "scores"),
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


def _read_remarks(path: Path) -> tuple[tuple[str | None, str], ...]:
    """Read what stage 1 said: ``<trials>`` or ``*``, a tab, the remark."""
    if not path.is_file():
        return ()
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        trials, tab, text = line.partition("\t")
        if not tab:
            raise SvError(f"{path}: line {number} is not '<trials-name><tab><remark>'")
        rows.append((None if trials == "*" else trials, text))
    return tuple(rows)


def _read_sidecars(directory: Path) -> tuple[StageEnergy, ...]:
    found = [file for file in sorted(directory.glob("*.json")) if _SIDECAR.fullmatch(file.name)]
    return tuple(_read_sidecar(file) for file in found)


def _list_journals(directory: Path) -> list[Path]:
    """List the journals of stages that have no sidecar."""
    suffix = ".journal.jsonl"
    found = sorted(directory.glob(f"*{suffix}"))
    return [p for p in found if not p.with_name(p.name.removesuffix(suffix) + ".json").is_file()]


def _read_sidecar(path: Path) -> StageEnergy:
    record = read_sidecar(path)
    match = _SIDECAR.fullmatch(path.name)
    assert match  # the caller lists only such names
    status = take_text(record, "status")
    if status not in _STATUS:
        raise SvError(f"{path}: status is '{status}', expected one of {', '.join(_STATUS)}")
    fraction = take_number(record, "measured_fraction", path)
    if fraction is not None and fraction > 1 + 1e-9:
        raise SvError(f"{path}: measured_fraction is {fraction}, expected 0 to 1")
    carbon, pue = (take_part(record, key, dict, path) for key in ("carbon", "pue"))
    return StageEnergy(
        path=path,
        stage=int(match["stage"]),
        name=match["name"],
        model=record.get("model"),
        status=status,
        exit_code=record.get("exit_code"),
        host=take_text(record, "host"),
        started_utc=take_text(record, "started_utc"),
        duration_s=take_number(record, "duration_s", path),
        energy_kwh=take_number(record, "energy_kwh", path),
        energy_all_kwh=take_number(record, "energy_all_kwh", path),
        measured_fraction=fraction,
        co2_g=take_number(record, "co2_g", path),
        carbon=Carbon(
            **{
                key: take_text(carbon, key)
                for key in ("provider", "zone", "year", "vintage", "scope", "basis")
            },
            g_per_kwh=take_number(carbon, "g_per_kwh", path),
            source=take_text(carbon, "source"),
            reason=take_text(carbon, "reason"),
        ),
        pue_value=take_number(pue, "value", path),
        pue_source=take_text(pue, "source"),
        channels=tuple(
            _build_channel(item, path) for item in take_part(record, "channels", list, path)
        ),
        attempts=len(take_part(record, "attempts", list, path)),
        reason=take_text(record, "reason"),
        energy_node_kwh=take_number(record, "energy_node_kwh", path),
        attribution=take_text(take_part(record, "attribution", dict, path), "rule") or "exclusive",
        uncertainty_kwh=take_number(record, "uncertainty_kwh", path),
        uncertainty_reason=take_text(record, "uncertainty_reason"),
        energy_above_idle_kwh=_take_signed(record, "energy_above_idle_kwh", path),
        above_idle_reason=take_text(record, "above_idle_reason"),
        co2_all_g=take_number(record, "co2_all_g", path),
        nodes=tuple(_build_node(item, path) for item in take_part(record, "nodes", list, path)),
    )


def _take_signed(record: dict[str, Any], key: str, path: Path) -> float | None:
    """Take a number that noise may bring below 0."""
    value = record.get(key)
    if isinstance(value, int | float) and value < 0:
        return -take_required({key: -value}, key, path)
    return take_number(record, key, path)


def _build_channel(record: Any, path: Path) -> Channel:
    if not isinstance(record, dict):
        raise SvError(f"{path}: a channel is not an object")
    source = record.get("source")
    if isinstance(source, dict):  # backend, path, name, api: the first two say it
        source = " ".join(str(source[key]) for key in ("backend", "path") if source.get(key))
    return Channel(
        **{key: take_text(record, key) for key in ("id", "boundary", "kind", "method", "reason")},
        source=str(source or ""),
        energy_j=take_number(record, "energy_j", path),
        in_total=bool(record.get("in_total")),
        host=take_text(record, "host"),
    )


def _build_node(record: Any, path: Path) -> Node:
    if not isinstance(record, dict):
        raise SvError(f"{path}: a node is not an object")
    texts = {key: take_text(record, key) for key in ("host", "label", "status", "reason")}
    return Node(**texts, energy_kwh=take_number(record, "energy_kwh", path))


def _read_extraction(path: Path) -> Extraction:
    record = read_object(path)
    frames = take_number(record, "frames", path)
    return Extraction(
        folder=path.parent.name,
        data_set=take_text(record, "data_set", path),
        precision=take_text(record, "precision", path),
        utterances=take_whole(record, "utterances", path),
        frames=None if frames is None else int(frames),
        audio_s=take_number(record, "audio_s", path),
        device=take_text(record, "device"),
        untrained=bool(record.get("untrained", False)),
    )
