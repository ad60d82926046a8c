"""Enrolment models of several utterances: the mean of their embeddings."""

from collections.abc import Mapping, Sequence

import numpy as np

from sv.errors import SvError
from sv.kaldi.data_dir import MAX_LISTED


def append_models(
    models: Mapping[str, Sequence[str]], keys: list[str], vectors: np.ndarray
) -> tuple[list[str], np.ndarray]:
    """Append a row for each model: the mean of the embeddings of its utterances.

    Args:
        models: Name -> utterances, see `sv.kaldi.trials.read_models`.
        keys: Utterance of each row of ``vectors``.
        vectors: (utterances, dim) float32.

    Returns:
        Keys and vectors, the models after the utterances.

    Raises:
        SvError: A model has the name of an utterance, or one of its utterances no embedding.
    """
    row_of = {key: row for row, key in enumerate(keys)}
    if same := sorted(models.keys() & row_of.keys()):
        raise SvError(f"{len(same)} enrolment models are named like utterances (first: {same[0]})")
    wanted = dict.fromkeys(u for utterances in models.values() for u in utterances)
    if unknown := [u for u in wanted if u not in row_of]:
        raise SvError(
            f"{len(unknown)} of {len(wanted)} utterances of the enrolment models have no "
            f"embedding ({', '.join(unknown[:MAX_LISTED])}); make stages 3 and 6 again"
        )
    means = [
        vectors[[row_of[u] for u in utterances]].mean(axis=0, dtype=np.float64)
        for utterances in models.values()
    ]
    if not means:
        return keys, vectors
    return [*keys, *models], np.concatenate([vectors, np.array(means, dtype=np.float32)])
