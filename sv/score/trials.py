"""What belongs to a trial list: the scores of a file, embeddings, and values such as speakers.

All are put in the order of the list; whatever is missing, twice there or too much is an error.
"""

from collections.abc import Collection, Container, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from sv.errors import SvError
from sv.kaldi.data_dir import MAX_LISTED, read_table
from sv.kaldi.trials import (
    Trials,
    encode_pairs,
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
    found = _find_keys(trials, names, enrol, test)
    bad = np.flatnonzero(~np.isfinite(scores))
    if np.array_equal(keys, found) and not len(bad):
        return scores
    order = np.argsort(found, kind="stable")
    at = order[np.searchsorted(found, keys, sorter=order).clip(max=len(found) - 1)]
    missing = np.flatnonzero(found[at] != keys)
    if len(found) == len(keys) and not len(missing) and not len(bad):
        return scores[at]
    problems = []
    if len(missing):
        first = _name_pairs(trials.utterances, trials.enrol, trials.test, missing)
        problems.append(f"{len(missing)} of {len(keys)} trials have no score ({first})")
    of_list = np.isin(found, keys)
    again = of_list.copy()
    again[np.unique(found, return_index=True)[1]] = False
    for lines, what in (
        (np.flatnonzero(~of_list), "scores are of trials that the list does not have"),
        (np.flatnonzero(again), "trials are scored twice"),
        (bad, "scores are NaN or infinite"),
    ):
        if len(lines):
            problems.append(f"{len(lines)} {what} ({_name_pairs(names, enrol, test, lines)})")
    raise SvError(f"{path}: {'; '.join(problems)}")


def _name_pairs(names: list[str], enrol: np.ndarray, test: np.ndarray, which: np.ndarray) -> str:
    return ", ".join(f"{names[enrol[i]]} {names[test[i]]}" for i in which[:MAX_LISTED])


def count_shared_trials(a: Trials, b: Trials) -> int:
    """Count the trials of ``a`` that are in ``b`` too, whichever side is enrolled."""
    keys = pair_keys(a.enrol, a.test, len(a.utterances))
    sides = ((b.enrol, b.test), (b.test, b.enrol))
    found = [_find_keys(a, b.utterances, *pair) for pair in sides]
    return int(np.count_nonzero(np.isin(keys, found)))


def _find_keys(
    trials: Trials, names: Sequence[str], enrol: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """Return the `pair_keys` that pairs of ``names`` have in a list, -1 of those it cannot have."""
    place = {utterance: i for i, utterance in enumerate(trials.utterances)}
    rows = np.array([place.get(name, -1) for name in names])
    known = (rows[enrol] >= 0) & (rows[test] >= 0)
    return np.where(known, pair_keys(rows[enrol], rows[test], len(place)), -1)


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
    row_of = {key: row for row, key in enumerate(keys)}
    if same := sorted((models or {}).keys() & row_of.keys()):
        raise SvError(f"{len(same)} enrolment models are named like utterances (first: {same[0]})")
    lack = "{} have no embedding ({}); make stages 3 and 6 again"
    if models:
        wanted = dict.fromkeys(u for utterances in models.values() for u in utterances)
        _validate_known(wanted, row_of, lack, "utterances of the enrolment models")
        means = [
            vectors[[row_of[u] for u in utterances]].mean(axis=0, dtype=np.float64)
            for utterances in models.values()
        ]
        row_of |= {model: len(vectors) + i for i, model in enumerate(models)}
        vectors = np.concatenate([vectors, np.array(means, dtype=np.float32)])
    _validate_known(trials.utterances, row_of, lack)
    return vectors[[row_of[u] for u in trials.utterances]]


def _validate_known(
    wanted: Collection[str],
    known: Container[str],
    lack: str,
    what: str = "utterances of the trial list",
) -> None:
    if unknown := [key for key in wanted if key not in known]:
        counted = f"{len(unknown)} of {len(wanted)} {what}"
        raise SvError(lack.format(counted, ", ".join(unknown[:MAX_LISTED])))


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
    _validate_known(trials.utterances, table, lack)
    ranks = {value: rank for rank, value in enumerate(order)}
    values = {table[u] for u in trials.utterances}
    names = sorted(values, key=lambda value: (ranks.get(value, len(order)), value))
    place = {name: i for i, name in enumerate(names)}
    return names, np.array([place[table[u]] for u in trials.utterances], dtype=np.int64)


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
