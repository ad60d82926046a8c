"""Whether systems may stand in one table: trained, and scored, by the same settings.

Compared between systems are
- every key of the resolved training config, exp/<model>/config.toml (precision too), but for
  `HOW_KEYS` and keys that others switch off (`_drop_idle`); micro_batch_size counts, because batch
  normalisation takes its statistics from a micro-batch;
- the front end (of model.json; final.pt is asked where that is older than its key), and of
  model.json what the training set decides: speakers, features a frame, crops trained;
- of each trial list and backend the resolved settings of the backend, the numbers of trials, and
  the digest of the list where stage 7 left one (.boot.json).

A system without config.toml was not trained, and what a system lacks is compared with nothing.

Checkpointing and compilation change no result, but what it cost: tables of training energies say
where systems differ in them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from sv.errors import SvError
from sv.files import read_toml
from sv.model_name import BASE_CHANNELS
from sv.report.results import Results, System
from sv.report.tables.evidence import list_some

# Of config.toml: when something is saved or kept and how the same is computed, not what.
_MEMORY, _COMPILE = "checkpointing", "compile"
_OLD_MEMORY = "activation_checkpointing"  # of before: false or true
HOW_KEYS = (_MEMORY, _COMPILE, "checkpoint_minutes", "keep_checkpoints")
_ARITHMETIC = {
    _MEMORY: "full computed feature maps twice, selective all but the outputs of convolutions",
    _COMPILE: "true computed several operations in one pass over memory",
}
_OF_NETWORK = ("input_dim", "speakers", "crops_trained")
_NOT_SET = "not set"
_BASE = {"network.base_channels": f"[{', '.join(map(str, BASE_CHANNELS))}]"}


@dataclass(frozen=True)
class Difference:
    """A setting in which systems differ: each value with the systems that have it."""

    key: str
    values: dict[str, tuple[str, ...]]

    def describe(self) -> str:
        """Say it in words: ``num_epochs is 42 (a, b) and 2 (c)``."""
        parts = [f"{value} ({list_some(list(names))})" for value, names in self.values.items()]
        return f"{self.key} is {' and '.join(parts)}"


def find_differences(results: Results) -> list[Difference]:
    """List the settings in which the systems differ, those of training first.

    Raises:
        SvError: A config.toml or final.pt cannot be read.
    """
    return _group(chain(_list_trainings(results.systems), _list_scorings(results.systems)))


def explain_arithmetic(results: Results) -> list[str]:
    """Say where trainings of the same results paid for different arithmetic; nothing if none did.

    Raises:
        SvError: A config.toml cannot be read.
    """
    configs = _read_configs(results.systems)
    old = {name: "full" if c.get(_OLD_MEMORY) else "none" for name, c in configs.items()}
    settings = chain(
        ((_MEMORY, c.get(_MEMORY, old[name]), name) for name, c in configs.items()),
        ((_COMPILE, str(c.get(_COMPILE, False)).lower(), name) for name, c in configs.items()),
    )
    return [
        f"Trainings differ in what they computed for the same results: {found.describe()}; "
        f"{_ARITHMETIC[found.key]}."
        for found in _group(settings)
    ]


def _group(settings: Iterable[tuple[str, str, str]]) -> list[Difference]:
    found: dict[str, dict[str, dict[str, None]]] = {}
    for key, value, name in settings:
        found.setdefault(key, {}).setdefault(value, {})[name] = None
    return [
        Difference(key, {value: tuple(names) for value, names in values.items()})
        for key, values in found.items()
        if len(values) > 1
    ]


def refuse_mixed(differences: list[Difference]) -> None:
    """Refuse to put systems of different settings into one table.

    Raises:
        SvError: There are differences.
    """
    if differences:
        more = [difference.key for difference in differences[1:]]
        others = f"; {list_some(more)} differ{'' if len(more) > 1 else 's'} too"
        raise SvError(
            f"systems of different settings would stand in one table: {differences[0].describe()}"
            f"{others if more else ''}; run steps/make_results.sh with --models of alike ones, or "
            "with --allow-mixed true"
        )


def _read_configs(systems: Iterable[System]) -> dict[str, dict[str, Any]]:
    """Read the resolved training configs of the systems that were trained."""
    paths = {system.name: system.directory / "config.toml" for system in systems}
    return {name: read_toml(path) for name, path in paths.items() if path.is_file()}


def _list_trainings(systems: tuple[System, ...]) -> Iterator[tuple[str, str, str]]:
    """Yield (key, value, system) of every setting of training."""
    configs = {  # before there was a base, channels were the study's
        name: _BASE | _flatten(_drop_idle(config))
        for name, config in _read_configs(systems).items()
    }
    for key in sorted({key for config in configs.values() for key in config}):
        for name, config in configs.items():
            yield key, config.get(key, _NOT_SET), name
    for system in systems:
        for key, value in sorted(find_front_end(system).items()):
            yield f"front end {key}", _format(value), system.name
        for key in _OF_NETWORK:
            value = getattr(system.network, key, None)
            if value is not None:
                yield f"{key} of model.json", _format(value), system.name


def find_front_end(system: System) -> dict[str, Any]:
    """Return the resolved conf/features.toml that a trained network expects; empty: unknown.

    Raises:
        SvError: model.json does not have it, and final.pt is none of this recipe.
    """
    if system.network is not None and system.network.features is not None:
        return system.network.features
    path = system.directory / "final.pt"
    if not path.is_file():
        return {}
    from sv.train.store import load_checkpoint  # noqa: PLC0415 - torch, for an old tree alone

    return load_checkpoint(path).get("features") or {}


def _drop_idle(config: dict[str, Any]) -> dict[str, Any]:
    """Drop the keys that another key says are not used; see sv.train.config."""
    idle = {*HOW_KEYS, _OLD_MEMORY}
    if config.get("final_weights") != "average":
        idle.add("average_epochs")
    kept = {key: value for key, value in config.items() if key not in idle}
    tuning, margin = kept.get("fine_tuning"), kept.get("margin")
    if isinstance(tuning, dict) and tuning.get("num_epochs") == 0:
        kept["fine_tuning"] = {"num_epochs": 0}
    if isinstance(margin, dict) and margin.get("head") != "sub_centre_aam":
        kept["margin"] = {key: value for key, value in margin.items() if key != "sub_centres"}
    return kept


def _flatten(config: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = _format(value)
    return flat


def _format(value: object) -> str:
    """Return a value as text: 5 and 5.0 are the same setting."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list):
        return f"[{', '.join(map(_format, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _list_scorings(systems: tuple[System, ...]) -> Iterator[tuple[str, str, str]]:
    """Yield (key, value, system) of every setting of scoring, of all precisions alike."""
    scores = [(s.name, score) for s in systems for score in s.scores if not score.untrained]
    parameters: dict[tuple[str, str], dict[str, None]] = {}
    for _, score in scores:
        known = parameters.setdefault((score.trials_name, score.backend), {})
        known |= dict.fromkeys(score.backend_parameters)
    for name, score in scores:
        of = f"of {score.trials_name} ({score.backend})"
        for key in parameters[score.trials_name, score.backend]:
            yield f"{key} {of}", _format(score.backend_parameters.get(key, _NOT_SET)), name
        yield f"number of trials {of}", f"{score.targets} + {score.nontargets}", name
        if score.bootstrap is not None:
            yield f"digest of the list {of}", score.bootstrap.draws[0][:12], name
