"""Enrolment models of several utterances: ``data/trials/<name>.models``, in spk2utt's form.

A trial's first word then names a model, whose embedding is the mean of its utterances'
embeddings; a list without this file enrols single utterances.
"""

from pathlib import Path

from sv.kaldi.data_dir import read_table, write_table


def get_models_path(trials: Path) -> Path:
    """Give the file of a trial list's models."""
    return trials.with_name(f"{trials.name}.models")


def read_models(trials: Path) -> dict[str, tuple[str, ...]]:
    """Read the models of a trial list: name -> utterances; empty if it has none.

    Raises:
        SvError: See `sv.kaldi.data_dir.read_table`.
    """
    path = get_models_path(trials)
    if not path.exists():
        return {}
    return {model: tuple(words.split()) for model, words in read_table(path).items()}


def write_models(trials: Path, models: dict[str, tuple[str, ...]]) -> None:
    """Write the models of a trial list."""
    write_table(get_models_path(trials), {key: " ".join(words) for key, words in models.items()})
