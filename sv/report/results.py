"""What stages 0 to 7 left behind: systems, their scores, and the energy of every stage.

`collect_results` reads it all into frozen records; tables, figures, page and advice look things up
in these. A figure that is not known is None, and who shows it says why. Absent files are no error
here; broken ones are, in one line that names file and field, because a guess about a broken figure
is worse than no table.
"""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from sv.config import FileName, build_record
from sv.energy.journal import SUFFIX
from sv.energy.record import Amount, Carbon, Count, Sidecar, read_record
from sv.energy.sidecar import left_nothing
from sv.errors import SvError, UsageError
from sv.files import read_object, read_text, validate_name, write_json
from sv.model_name import ModelName, check_model_name, parse_model_name
from sv.score.config import BACKENDS
from sv.score.record import ScoredList, read_scores

P_TARGET = "0.01"  # minDCF of the tables: the study, section 5.1
TRAIN_STAGE, EXTRACT_STAGE, SCORE_STAGE, RESULTS_STAGE = 5, 6, 7, 8
FORECAST = "forecast"  # stage 5 of another kind: some steps, thrown away
FAMILIES = {"depth": "Depth scaling", "stage": "Stage-distribution scaling"}
FAMILIES |= {"width": "Width scaling", "other": "Other"}
_SIDECAR = re.compile(r"\d\d_.+\.json")
T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """One sidecar, ``<NN>_<name>.json``, or the sum of several (`sv.report.tables.stages`).

    ``recorded_carbon`` is what the file has where the CO2 was computed anew at another factor.
    """

    path: Path
    sidecar: Sidecar
    recorded_carbon: Carbon | None = None

    @property
    def number(self) -> int:
        """Number of the stage, 0 to 8."""
        return self.sidecar.stage

    @property
    def name(self) -> str:
        """Name of the stage: ``train``, ``extract_vox1``, ..."""
        return self.sidecar.name

    @property
    def energy_kwh(self) -> float | None:
        """Energy of the run that made the result."""
        return self.sidecar.energy_kwh

    @property
    def co2_kg(self) -> float | None:
        """CO2 of that energy."""
        return None if self.sidecar.co2_g is None else self.sidecar.co2_g / 1000


@dataclass(frozen=True)
class Network:
    """What is read of a model.json; all of it is in ``record``.

    Attributes:
        gmac: 10^9 multiply-accumulates of one crop as trained.
        crops_by_phase: Crops trained by phase, where training has several.
        features: The resolved front end; None in a file of before it was written there.
    """

    parameters: Count
    parameters_with_head: Count
    gmac: Amount | None = None
    crops_trained: Count | None = None
    crops_by_phase: dict[str, int] | None = None
    input_dim: Count | None = None
    speakers: Count | None = None
    features: dict[str, Any] | None = None
    record: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Extraction:
    """The embeddings of one test set at one precision (info.json of ``folder``)."""

    folder: FileName
    data_set: str
    precision: str
    utterances: Count
    frames: Count | None = None
    audio_s: Amount | None = None
    device: str | None = None
    untrained: bool = False

    @property
    def expected_folder(self) -> str:
        """Name of the folder that has the embeddings of the trained network."""
        return f"xvectors_{extract_name(self.data_set, self.precision)}"


@dataclass(frozen=True)
class System:
    """One model folder; ``network`` is None where it has no model.json.

    ``extractions`` are by the trained network; ``backend`` is the one whose scores are looked up:
    in `Results.systems` the first of all. Where it is not (``is_first`` is false), there are no
    stages: a system's energy stands once in a table.
    """

    name: str
    directory: Path
    network: Network | None
    stages: tuple[Stage, ...]
    extractions: tuple[Extraction, ...]
    scores: tuple[ScoredList, ...]
    backend: str = BACKENDS[0]
    is_first: bool = True

    @property
    def label(self) -> str:
        """Label of its row: the name, with the backend where that is not the first."""
        return self.name if self.is_first else f"{self.name} {self.backend}"

    @property
    def training(self) -> Stage | None:
        """The stage that trained it, or None."""
        return find_stage(self, TRAIN_STAGE, "train")


@dataclass(frozen=True)
class Results:
    """All that stage 8 found.

    Attributes:
        systems: Those of the tables, in their order.
        without_result: Model folders in which nothing was made but a forecast, or whose training
            was refused or failed before it left anything. They took energy, no more.
        trial_sets: The data set of each trial list, in the order of the tables.
        scored: Lists for which at least one system has metrics of the first backend: averages are
            over these.
        backends: Those that scored a list, cosine first.
        journals: Those of stages without a sidecar.
        broken: Files that could not be read; their systems are left out.
        remarks: What stage 1 wrote about the corpora, with the trial list; None: all lists.
    """

    data: Path
    exp: Path
    systems: tuple[System, ...]
    without_result: tuple[System, ...]
    shared: tuple[Stage, ...]
    trial_sets: dict[str, str]
    scored: tuple[str, ...]
    backends: tuple[str, ...]
    journals: tuple[Path, ...]
    broken: tuple[str, ...] = ()
    remarks: tuple[tuple[str | None, str], ...] = ()

    @property
    def stages(self) -> list[tuple[str, Stage]]:
        """Every sidecar with its owner, ``shared`` or a system."""
        owned = [("shared", stage) for stage in self.shared]
        return owned + [(system.name, stage) for system in self.metered for stage in system.stages]

    @property
    def metered(self) -> tuple[System, ...]:
        """Every model folder with energy, those without a row in the other tables last."""
        return (*self.systems, *self.without_result)

    @property
    def views(self) -> list[System]:
        """The rows of a table: each system once for each backend that scored a list of it.

        The first backend comes first and is always there.
        """
        views = []
        for system in self.systems:
            views.append(system)
            found = {score.backend for score in system.scores if not score.untrained}
            for backend in self.backends[1:]:
                if backend in found:
                    views.append(replace(system, backend=backend, is_first=False, stages=()))
        return views


@dataclass(frozen=True)
class Average:
    """Means over the scored trial lists; None with a reason where one is missing."""

    eer_percent: float | None
    min_dcf: float | None
    reason: str


def collect_results(data: Path, exp: Path, models: list[str] | None = None) -> Results:
    """Read the model folders under ``exp`` and the shared sidecars under ``data``.

    Args:
        data: The recipe's data folder (``energy/``, ``test_trials``).
        exp: The recipe's exp folder.
        models: Names to report, also those that have no folder yet; None: every folder with a
            model.json or an energy sidecar, `Results.without_result` apart.

    Raises:
        SvError: There is nothing at all to report, or no system without a broken file.
        UsageError: One of ``models`` has no folder and is no model name.
    """
    names = models if models else _list_models(exp)
    for name in names:
        if not (exp / name).is_dir():
            check_model_name(name)  # a model not yet trained is missing; a mistyped one is refused
    found, broken = [], []
    for name in sorted(set(names), key=system_order):
        try:
            found.append(read_system(exp / name))
        except SvError as error:
            broken.append(str(error))
    shared = []
    for folder in (data / "energy", exp / "energy"):
        for path in _list_sidecars(folder):
            try:
                shared.append(_read_stage(path))
            except SvError as error:
                broken.append(str(error))
    if broken and not found:
        raise SvError(broken[0])
    without = () if models else tuple(system for system in found if not _has_result(system))
    found = [system for system in found if models or _has_result(system)]
    if not any(system.network or system.stages or system.scores for system in found):
        raise SvError(f"no results under {exp}: run stages 5 to 7 first")
    scores = [score for system in found for score in system.scores]
    backends = _order_backends(scores)
    systems = tuple(replace(system, backend=backends[0]) for system in found)
    # In the order of the recipe's conf/corpora.toml, then lists that it no longer has, by name.
    sets = read_trial_sets(data)
    for score in sorted(scores, key=lambda score: score.trials_name):
        sets.setdefault(score.trials_name, score.data_set)
    # What stages 1 and 2 wrote; * is of all lists.
    paths = (data / "remarks.tsv", data / "augment_remarks.tsv")
    remarks = [r for path in paths for r in _read_pairs(path, "\t", "<trials-name><tab><remark>")]
    # Not exp/energy: the journal of stage 8 is being written now.
    folders = [data / "energy", *(system.directory / "energy" for system in (*systems, *without))]
    return Results(
        data=data,
        exp=exp,
        systems=systems,
        without_result=without,
        shared=tuple(shared),
        broken=tuple(broken),
        trial_sets=sets,
        scored=tuple(name for name in sets if any(find_score(s, name) for s in systems)),
        backends=backends,
        journals=tuple(path for folder in folders for path in _list_journals(folder)),
        remarks=tuple((None if name == "*" else name, text) for name, text in remarks),
    )


def read_system(directory: Path) -> System:
    """Read one model folder; each part may be absent."""
    if not directory.name.isprintable():
        raise SvError(f"{str(directory)!r}: not a name")
    infos = sorted(directory.glob("xvectors_*/info.json"))
    model = directory / "model.json"
    network = None
    with _made_by(EXTRACT_STAGE):
        found = [read_known(path, Extraction, folder=path.parent.name) for path in infos]
    with _made_by(TRAIN_STAGE):
        if model.is_file():
            network = read_known(model, Network, record=read_object(model))
    with _made_by(SCORE_STAGE):
        scores = read_scores(directory / "scores")
    return System(
        name=directory.name,
        directory=directory,
        network=network,
        stages=_read_sidecars(directory / "energy"),
        extractions=tuple(e for e in found if e.folder == e.expected_folder and not e.untrained),
        scores=scores,
    )


@contextlib.contextmanager
def _made_by(stage: int) -> Iterator[None]:
    """Say of a broken file which stage makes it."""
    try:
        yield
    except SvError as error:
        raise SvError(f"{error}; delete it and run stage {stage} again") from error


def read_trial_sets(data: Path) -> dict[str, str]:
    """Return the data set of each trial list of the recipe, in its order; empty before stage 2."""
    path = data / "test_trials"
    pairs = _read_pairs(path, None, "<trials-name> <data-set>")
    for name in (name for pair in pairs for name in pair):
        validate_name(name, f"{path}:")
    return dict(pairs)


def read_known(path: Path, cls: type[T], **own: Any) -> T:
    """Read from a JSON file what a dataclass has a field for; its other keys are ignored.

    Args:
        path: Holds an object.
        cls: See `sv.config.read_config`.
        own: Fields that are not from the file.

    Raises:
        SvError: A field is missing or not valid; the message names file and field.
    """
    return build_record(_keep_known(read_object(path), cls) | own, cls, where=str(path))


def _keep_known(values: dict[str, Any], cls: type) -> dict[str, Any]:
    """Leave out the keys that a dataclass, or one inside it, has no field for."""
    known = {}
    for name, hint in get_type_hints(cls).items():
        if name in values:
            value = values[name]
            inner = next((t for t in (hint, *get_args(hint)) if dataclasses.is_dataclass(t)), None)
            nested = isinstance(inner, type) and isinstance(value, dict)
            known[name] = _keep_known(value, inner) if nested else value
    return known


def _list_models(exp: Path) -> list[str]:
    if not exp.is_dir():
        return []
    return [
        folder.name
        for folder in exp.iterdir()
        if (folder / "model.json").is_file() or any((folder / "energy").glob("[0-9][0-9]_*.json*"))
    ]


def _has_result(system: System) -> bool:
    """Return whether a system has left anything but a forecast, or is being trained."""
    stages = [stage for stage in system.stages if stage.name != FORECAST]
    kept = any(not left_nothing(attempt) for s in stages for attempt in s.sidecar.attempts)
    journals = _list_journals(system.directory / "energy")
    running = [path for path in journals if not path.name.endswith(f"_{FORECAST}{SUFFIX}")]
    return bool(system.network or system.extractions or system.scores or running or kept)


def _read_pairs(path: Path, separator: str | None, form: str) -> list[tuple[str, str]]:
    """Read a text file of two fields a line; an absent file has none."""
    lines = read_text(path).splitlines() if path.is_file() else []
    pairs = []
    for number, line in enumerate(lines, 1):
        fields = line.split(separator, 1)
        if len(fields) != 2 or (separator is None and len(line.split()) != 2):
            raise SvError(f"{path}: line {number} is not '{form}'")
        pairs.append((fields[0], fields[1].strip() if separator is None else fields[1]))
    return pairs


def _read_sidecars(directory: Path) -> tuple[Stage, ...]:
    return tuple(map(_read_stage, _list_sidecars(directory)))


def _read_stage(path: Path) -> Stage:
    validate_name(path.name, f"{path.parent}: the sidecar")
    return Stage(path, read_record(path))


def _list_sidecars(directory: Path) -> list[Path]:
    return [path for path in sorted(directory.glob("*.json")) if _SIDECAR.fullmatch(path.name)]


def _list_journals(directory: Path) -> list[Path]:
    """List the journals of stages that have no sidecar."""
    found = sorted(directory.glob(f"*{SUFFIX}"))
    return [p for p in found if not p.with_name(p.name.removesuffix(SUFFIX) + ".json").is_file()]


def _order_backends(scores: Sequence[ScoredList]) -> tuple[str, ...]:
    """List the backends in the order of `BACKENDS`, then others; at least one."""
    found = {score.backend for score in scores if not score.untrained}
    known = [name for name in BACKENDS if name in found]
    return (*known, *sorted(found.difference(BACKENDS))) or BACKENDS[:1]


# Order and look-ups.


def _parsed(name: str) -> ModelName | None:
    try:
        return parse_model_name(name)
    except UsageError:
        return None  # a folder that a person named: shown, after the others


def family_of(name: str) -> str:
    """Return the family of a model in the study's Table 1: depth, stage, width, or other."""
    model = _parsed(name)
    if model is None:
        return "other"
    if model.width != 1:
        return "width"
    return "stage" if "_d_" in name else "depth"


def system_order(name: str) -> tuple[Any, ...]:
    """Return the sort key that puts models in the order of the study's Table 1.

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


def find_stage(system: System, stage: int, name: str) -> Stage | None:
    """Find a model's stage by number and name (``6, "extract_vox1"``), or None."""
    return next((s for s in system.stages if (s.number, s.name) == (stage, name)), None)


def extract_name(data_set: str, precision: str) -> str:
    """Name the extraction of a test set as files do: no suffix for fp32."""
    return data_set if precision == "fp32" else f"{data_set}_{precision}"


def find_score(system: System, trials: str, precision: str = "fp32") -> ScoredList | None:
    """Find the metrics of a trial list by the system's backend, or None."""
    of = (trials, precision, False, system.backend)
    found = (s for s in system.scores if (s.trials_name, s.precision, s.untrained, s.backend) == of)
    return next(found, None)


def compute_average(system: System, trials: tuple[str, ...], precision: str = "fp32") -> Average:
    """Average EER and minDCF of a system over trial lists; every list or no average.

    A mean over fewer lists than the other systems have would look better or worse for no reason.
    """
    if not trials:
        return Average(None, None, "no trial list has been scored")
    scores = {name: find_score(system, name, precision) for name in trials}
    found = [score for score in scores.values() if score is not None]
    if len(found) < len(trials):
        missing = ", ".join(name for name, score in scores.items() if score is None)
        stem = extract_name(f"{missing}_{system.backend}", precision)
        file = absent_file(system, f"scores/{stem}.json")
        several = f"not scored on {missing} ({precision})"
        return Average(None, None, file if len(trials) == 1 else several)
    eer_percent = sum(score.eer_percent for score in found) / len(found)
    costs = [score.min_dcf[P_TARGET] for score in found if P_TARGET in score.min_dcf]
    if len(costs) < len(found):
        lacking = ", ".join(s.path.name for s in found if P_TARGET not in s.min_dcf)
        return Average(eer_percent, None, f"no minDCF at P {P_TARGET} in {lacking}")
    return Average(eer_percent, sum(costs) / len(costs), "")


def absent_file(system: System, name: str) -> str:
    """Say why a file of a system is not there."""
    return f"no {name}" if system.directory.is_dir() else f"no folder {system.directory}"


def absent_stage(system: System, stage: int, name: str) -> str:
    """Say why a system has no sidecar of a stage."""
    stem = f"{stage:02d}_{name}"
    journal = system.directory / "energy" / f"{stem}{SUFFIX}"
    if journal.is_file():
        return f"energy/{journal.name} has no sidecar yet (steps/make_results.sh makes it)"
    return absent_file(system, f"energy/{stem}.json")


# results.json of a model: its metrics and its energy in one place, for other programs.

_METRICS = (
    "trials_name", "data_set", "backend", "precision", "untrained", "trials", "targets",
    "nontargets", "eer_percent", "eer_threshold", "min_dcf",
)  # fmt: skip
_ENERGY = (
    "stage", "name", "model", "status", "exit_code", "host", "started_utc", "duration_s",
    "energy_kwh", "energy_all_kwh", "energy_node_kwh", "measured_fraction", "uncertainty_kwh",
    "uncertainty_reason", "co2_g", "co2_all_g", "reason",
)  # fmt: skip
_CARBON = (
    "provider", "zone", "year", "vintage", "scope", "basis", "g_per_kwh", "source", "reason",
)  # fmt: skip
_CHANNEL = (
    "id", "boundary", "kind", "method", "source", "energy_j", "in_total", "reason", "host",
)  # fmt: skip
_NODE = ("host", "label", "status", "energy_kwh", "reason")


def write_model_results(results: Results) -> list[Path]:
    """Write <exp>/<model>/results.json of every system that has a folder; return the paths."""
    paths = []
    for system in results.systems:
        if system.directory.is_dir():
            path = system.directory / "results.json"
            write_json(path, _join_model(results, system))
            paths.append(path)
    return paths


def _join_model(results: Results, system: System) -> dict[str, Any]:
    """Return what is known of one system; unknown is null. Energy in kWh, CO2 in g."""
    average = compute_average(system, results.scored)
    extractions = []
    for found in system.extractions:
        name = f"extract_{extract_name(found.data_set, found.precision)}"
        energy = _join_energy(find_stage(system, EXTRACT_STAGE, name))
        extractions.append({**dataclasses.asdict(found), "energy": energy})
    return {
        "name": system.name,
        "family": family_of(system.name),
        "network": system.network.record if system.network else None,
        "average": {
            "trial_lists": list(results.scored),
            "backend": system.backend,
            "eer_percent": average.eer_percent,
            "min_dcf": average.min_dcf,
            "reason": average.reason or None,
        },
        "scores": [_join_score(score) for score in system.scores],
        "training": _join_energy(system.training),
        "extractions": extractions,
        "stages": [_join_energy(stage) for stage in system.stages],
    }


def _join_score(score: ScoredList) -> dict[str, Any]:
    """Return the metrics of a list; long lists stay in the files next to the metrics file."""
    pairs = {p: pair for p, pair in (score.min_dcf_interval or {}).items() if pair is not None}
    return {
        "path": f"scores/{score.path.name}",
        **_pick(score, _METRICS),
        "eer_interval": score.eer_percent_interval,
        "min_dcf_interval": pairs,
        "backend_parameters": score.backend_parameters,
    }


def _join_energy(stage: Stage | None) -> dict[str, Any] | None:
    if stage is None:
        return None
    sidecar = stage.sidecar
    return {
        "path": f"energy/{stage.path.name}",
        **_pick(sidecar, _ENERGY),
        "attempts": len(sidecar.attempts),
        "attribution": sidecar.attribution.rule,
        "carbon": _pick(sidecar.carbon, _CARBON),
        "pue_value": sidecar.pue.value,
        "pue_source": sidecar.pue.source,
        "channels": [_pick(channel, _CHANNEL) for channel in sidecar.channels],
        "nodes": [_pick(meter, _NODE) for meter in sidecar.meters],
    }


def _pick(record: Any, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(record, name) for name in names}
