"""What belongs to a trial list: the scores of a file, embeddings, and values such as speakers.

All are put in the order of the list; whatever is missing, twice there or too much is an error.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from sv.errors import SvError
from sv.kaldi.data_dir import MAX_LISTED, read_table
from sv.kaldi.trials import (
    Trials,
    encode_pairs,
    find_places,
    find_score_columns,
    find_trial_columns,
    pair_keys,
    read_columns,
    read_models,
    read_trials,
)


def read_scored(trials_path: Path, scores_path: Path) -> tuple[Trials, np.ndarray]:
    """Read a trial list and a score file, of any toolkit: scores (trials,) float64.

    Raises:
        SvError: One cannot be read, or they do not belong together.
    """
    trials = read_trials(trials_path, find_trial_columns(trials_path))
    columns = find_score_columns(scores_path, set(trials.utterances))
    return trials, match_scores(trials, read_columns(scores_path, columns), scores_path)


def match_scores(trials: Trials, table: pa.Table, path: Path) -> np.ndarray:
    """Find the score of each trial; the file's lines may have any order.

    A pair that the list has several times may stand in the file as often, with one score.

    Args:
        trials: The list.
        table: Columns enrol, test (text) and score (float64), a line for each trial.
        path: Where the table was read, for messages.

    Returns:
        (trials,) float64, in the order of the list.

    Raises:
        SvError: Trials without a score, with two, scores of trials that the list does not have,
            NaN or infinity: how many of each, and the first of them.
    """
    names, enrol, test = encode_pairs(table.column("enrol"), table.column("test"))
    scores = table.column("score").to_numpy()
    keys = pair_keys(trials.enrol, trials.test, len(trials.utterances))
    places = find_places(names, trials.utterances)
    _log_plain(names, trials.utterances, places, path)
    found = _find_keys(places, enrol, test, len(trials.utterances))
    bad = np.flatnonzero(~np.isfinite(scores))
    if np.array_equal(keys, found) and not len(bad):
        return scores
    order = np.argsort(found, kind="stable")
    at = order[np.searchsorted(found, keys, sorter=order).clip(max=len(found) - 1)]
    missing = np.flatnonzero(found[at] != keys)
    if not len(missing) and not len(bad) and (np.bincount(at, minlength=len(found)) == 1).all():
        return scores[at]
    problems = []
    if len(missing):
        first = _name_pairs(trials.utterances, trials.enrol, trials.test, missing)
        problems.append(f"{len(missing)} of {len(keys)} trials have no score ({first})")
    of_list = np.isin(found, keys)
    _, first, which = np.unique(found, return_index=True, return_inverse=True)
    first = first[which]
    listed, times = np.unique(keys, return_counts=True)
    repeats = np.isin(found, listed[times > 1]) & (scores == scores[first])
    again = of_list & (first != np.arange(len(found))) & ~repeats
    for lines, what in (
        (np.flatnonzero(~of_list), "scores are of trials that the list does not have"),
        (np.flatnonzero(again), "trials are scored twice"),
        (bad, "scores are NaN or infinite"),
    ):
        if len(lines):
            problems.append(f"{len(lines)} {what} ({_name_pairs(names, enrol, test, lines)})")
    if not problems:
        return scores[at]
    if not of_list.all():
        problems.append("give the list that was scored or take out the lines that it does not have")
    raise SvError(f"{path}: {'; '.join(problems)}")


def _log_plain(names: Sequence[str], known: Sequence[str], places: np.ndarray, path: Path) -> None:
    """Say which ids of a file were found under another spelling."""
    plain = [(name, known[i]) for name, i in zip(names, places, strict=True) if i >= 0]
    plain = [pair for pair in plain if pair[0] != pair[1]]
    if plain:
        logging.info("%s: %d ids are spelt differently: '%s' is '%s'", path, len(plain), *plain[0])


def _name_pairs(names: list[str], enrol: np.ndarray, test: np.ndarray, which: np.ndarray) -> str:
    return ", ".join(f"{names[enrol[i]]} {names[test[i]]}" for i in which[:MAX_LISTED])


def count_shared_trials(a: Trials, b: Trials) -> int:
    """Count the trials of ``a`` that are in ``b`` too, whichever side is enrolled."""
    size = len(a.utterances)
    keys = pair_keys(a.enrol, a.test, size)
    places = find_places(b.utterances, a.utterances)
    found = [_find_keys(places, *pair, size) for pair in ((b.enrol, b.test), (b.test, b.enrol))]
    return int(np.count_nonzero(np.isin(keys, found)))


def _find_keys(places: np.ndarray, enrol: np.ndarray, test: np.ndarray, size: int) -> np.ndarray:
    """Return the `pair_keys` of pairs whose ids are at ``places`` of a list, -1 if one is not."""
    enrol, test = places[enrol], places[test]
    return np.where((enrol >= 0) & (test >= 0), pair_keys(enrol, test, size), -1)


def match_embeddings(
    trials: Trials,
    keys: Sequence[str],
    vectors: np.ndarray,
    models: Mapping[str, Sequence[str]] | None = None,
) -> np.ndarray:
    """Find the embedding of each utterance and enrolment model of a list.

    Args:
        trials: The list.
        keys: Utterance of each row of ``vectors``.
        vectors: (rows, dim) float32.
        models: Utterances of each enrolment model (`sv.kaldi.trials.read_models`), whose
            embedding is the mean of theirs.

    Returns:
        (utterances, dim) float32, row i belongs to ``trials.utterances[i]``.

    Raises:
        SvError: An utterance has no embedding, or a model has the name of an utterance.
    """
    if same := sorted((models or {}).keys() & set(keys)):
        raise SvError(f"{len(same)} enrolment models are named like utterances (first: {same[0]})")
    lack = "{} have no embedding ({}); make stages 3 and 6 again"
    if models:
        wanted = list(dict.fromkeys(u for utterances in models.values() for u in utterances))
        places = _find_all(wanted, keys, lack, "utterances of the enrolment models")
        row_of = dict(zip(wanted, places.tolist(), strict=True))
        means = [
            vectors[[row_of[u] for u in utterances]].mean(axis=0, dtype=np.float64)
            for utterances in models.values()
        ]
        keys = [*keys, *models]
        vectors = np.concatenate([vectors, np.array(means, dtype=np.float32)])
    return vectors[_find_all(trials.utterances, keys, lack)]


def _find_all(
    wanted: Sequence[str],
    known: Sequence[str],
    lack: str,
    what: str = "utterances of the trial list",
) -> np.ndarray:
    """Return the place of each wanted id among the known ones; see `find_places`."""
    places = find_places(wanted, known)
    if unknown := [key for key, place in zip(wanted, places, strict=True) if place < 0]:
        counted = f"{len(unknown)} of {len(wanted)} {what}"
        text = lack.format(counted, ", ".join(unknown[:MAX_LISTED]))
        if len(unknown) == len(wanted) and known:
            text += f"; the ids there are like '{known[0]}'"
        raise SvError(text)
    return places


def encode_values(
    trials: Trials, table: Mapping[str, str], lack: str, order: Sequence[str] = ()
) -> tuple[list[str], np.ndarray]:
    """Return the values that a list's utterances have, and each utterance's place among them.

    Args:
        trials: The list.
        table: Value of (at least) every utterance.
        lack: The error where one has none; gets how many of how many, and the first of them.
        order: Values that come first, in this order; others follow sorted.

    Returns:
        The values, and (utterances,) int64.

    Raises:
        SvError: The table lacks utterances of the list.
    """
    known = list(table.values())
    values = [known[place] for place in _find_all(trials.utterances, list(table), lack)]
    ranks = {value: rank for rank, value in enumerate(order)}
    names = sorted(set(values), key=lambda value: (ranks.get(value, len(order)), value))
    place = {name: i for i, name in enumerate(names)}
    return names, np.array([place[value] for value in values], dtype=np.int64)


def read_values(trials_path: Path, table: dict[str, str], *, mixed: str | None) -> dict[str, str]:
    """Extend a table of utterances by the enrolment models of a list.

    Args:
        trials_path: The list; its models are next to it.
        table: Value of each utterance.
        mixed: Value of a model whose utterances differ; None: that is an error.

    Raises:
        SvError: A model's utterance is not in the table, or the utterances differ.
    """
    extended = dict(table)
    for model, utterances in read_models(trials_path).items():
        unknown = [u for u in utterances if u not in table]
        if unknown:
            raise SvError(f"{trials_path}.models: no value of '{unknown[0]}' of model '{model}'")
        values = {table[u] for u in utterances}
        if len(values) > 1 and mixed is None:
            raise SvError(f"{trials_path}.models: model '{model}' has several speakers")
        extended[model] = values.pop() if len(values) == 1 else str(mixed)
    return extended


def read_speakers(trials_path: Path, utt2spk: Path) -> dict[str, str]:
    """Read the speaker of every utterance and enrolment model of a list.

    Raises:
        SvError: See `read_values` and `sv.kaldi.data_dir.read_table`.
    """
    return read_values(trials_path, read_table(utt2spk), mixed=None)
