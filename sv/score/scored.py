"""A trial list with the scores of a system, and the speakers or other values behind it."""

from pathlib import Path

import numpy as np

from sv.errors import SvError
from sv.kaldi.columns import (
    find_score_columns,
    find_trial_columns,
    read_any_scores,
    read_any_trials,
)
from sv.kaldi.data_dir import read_table
from sv.kaldi.trials import Trials, read_models
from sv.score.matching import match_scores


def read_scored(trials_path: Path, scores_path: Path) -> tuple[Trials, np.ndarray]:
    """Read a trial list and a score file, of any toolkit: scores (trials,) float64.

    Raises:
        SvError: One cannot be read, or they do not belong together.
    """
    trials = read_any_trials(trials_path, find_trial_columns(trials_path))
    columns = find_score_columns(scores_path, set(trials.utterances))
    return trials, match_scores(trials, read_any_scores(scores_path, columns), scores_path)


def read_values(trials_path: Path, table: dict[str, str], *, mixed: str | None) -> dict[str, str]:
    """Extend a table of utterances by the enrolment models of a list.

    Args:
        trials_path: The list; its models are beside it.
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
