"""The scores of a file, put in the order of a trial list; whatever does not fit is an error."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from sv.errors import SvError
from sv.kaldi.data_dir import MAX_LISTED
from sv.kaldi.trials import Trials, encode_pairs, pair_keys


def match_scores(trials: Trials, table: pa.Table, path: Path) -> np.ndarray:
    """Give each trial its score; the file's lines may have any order.

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
    place = {utterance: i for i, utterance in enumerate(trials.utterances)}
    rows = np.array([place.get(name, -1) for name in names])

    def name_lines(lines: np.ndarray) -> str:
        return _name_pairs(names, enrol, test, lines)

    keys = pair_keys(trials.enrol, trials.test, len(place))
    known = (rows[enrol] >= 0) & (rows[test] >= 0)
    found = np.where(known, pair_keys(rows[enrol], rows[test], len(place)), -1)
    bad = np.flatnonzero(~np.isfinite(scores))
    if np.array_equal(keys, found) and not len(bad):
        return scores
    order, into = np.argsort(keys), np.argsort(found, kind="stable")
    at = np.searchsorted(keys, found[into], sorter=order).clip(max=len(keys) - 1)
    of_list = keys[order[at]] == found[into]
    unknown = np.sort(into[~of_list])
    got = into[of_list]  # lines, in the order of the keys
    trial = order[at[of_list]]
    again = np.sort(got[1:][trial[1:] == trial[:-1]])
    scored = np.zeros(len(keys), dtype=bool)
    scored[trial] = True
    missing = np.flatnonzero(~scored)
    problems = []
    if len(missing):
        first = _name_pairs(trials.utterances, trials.enrol, trials.test, missing)
        problems.append(f"{len(missing)} of {len(keys)} trials have no score ({first})")
    if len(unknown):
        problems.append(
            f"{len(unknown)} scores are of trials that the list does not have "
            f"({name_lines(unknown)})"
        )
    if len(again):
        problems.append(f"{len(again)} trials are scored twice ({name_lines(again)})")
    if len(bad):
        problems.append(f"{len(bad)} scores are NaN or infinite ({name_lines(bad)})")
    if problems:
        raise SvError(f"{path}: {'; '.join(problems)}")
    matched = np.empty(len(keys))
    matched[trial] = scores[got]
    return matched


def _name_pairs(names: list[str], enrol: np.ndarray, test: np.ndarray, which: np.ndarray) -> str:
    return ", ".join(f"{names[enrol[i]]} {names[test[i]]}" for i in which[:MAX_LISTED])
