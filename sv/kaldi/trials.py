"""Trial lists (``enrol test target|nontarget``) and score files (``enrol test score``).

They are read with pyarrow: the largest list of the study has 9.7 million lines, and a Python loop
over them costs more than the scoring. Enrolment models of several utterances are in
``data/trials/<name>.models``, in the form of spk2utt: the first word of a trial is then a model,
whose embedding is the mean of its utterances' embeddings. A list without this file enrols single
utterances.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv

from sv.errors import SvError
from sv.files import replacing
from sv.kaldi.data_dir import read_table, write_table

_READ_BYTES = 4 << 20  # of a list at once: a thousand small blocks would cost more to join
_WRITE_LINES = 1 << 16  # formatted at once: some megabytes


@dataclass(frozen=True)
class Trials:
    """A trial list as index arrays into ``utterances``.

    ``enrol`` and ``test`` are (trials,) int32, ``is_target`` is (trials,) bool.
    """

    utterances: list[str]
    enrol: np.ndarray
    test: np.ndarray
    is_target: np.ndarray


def read_columns(
    path: Path, types: Mapping[str, pa.DataType], *, source: IO[bytes] | None = None
) -> pa.Table:
    """Read a text table without a header line, one space between columns.

    Args:
        path: The file, named in error messages.
        types: Name and type of every column, in order.
        source: Read instead of the file itself.

    Raises:
        SvError: Missing, unreadable or empty, or a line that does not have these columns.
    """
    try:
        table = pv.read_csv(
            source or path,
            read_options=pv.ReadOptions(column_names=list(types), block_size=_READ_BYTES),
            parse_options=pv.ParseOptions(delimiter=" ", quote_char=False),
            convert_options=pv.ConvertOptions(
                column_types=types, strings_can_be_null=False, null_values=[]
            ),
        )
    except OSError as error:
        raise SvError(f"cannot read {path}: {error}") from error
    except pa.ArrowInvalid as error:
        message = str(error).splitlines()[0]
        raise SvError(f"{path}: expected lines '{' '.join(types)}': {message}") from error
    if table.num_rows == 0:
        raise SvError(f"{path}: empty")
    return table


def read_trials(path: Path) -> Trials:
    """Read a trial list.

    Raises:
        SvError: A line is not ``enrol test target|nontarget`` (single spaces), a trial is listed
            twice, or the file is empty.
    """
    types = dict.fromkeys(("enrol", "test", "target|nontarget"), pa.string())
    return build_trials(path, read_columns(path, types), {"target": True, "nontarget": False})


def build_trials(
    path: Path, table: pa.Table, labels: Mapping[str, bool], *, fold: Callable[[str], str] = str
) -> Trials:
    """Build a trial list of a table with the text columns enrol, test and label, in this order.

    Args:
        path: Where the table was read, for messages.
        table: A row for each trial.
        labels: Whether a trial with this label is a target one.
        fold: Applied to a label before it is looked up.

    Raises:
        SvError: A label is unknown, or a trial is listed twice.
    """
    words, indices = _encode(table.column(2))
    meanings = [labels.get(fold(word)) for word in words.to_pylist()]
    if unknown := [i for i, meaning in enumerate(meanings) if meaning is None]:
        wrong = np.isin(indices, unknown)
        line = int(np.argmax(wrong))
        raise SvError(
            f"{path}: {np.count_nonzero(wrong)} labels are none of {', '.join(labels)} "
            f"(first: line {line + 1}, '{words[indices[line]]}')"
        )
    is_target = np.array(meanings, dtype=bool)[indices]
    utterances, enrol, test = encode_pairs(table.column(0), table.column(1))
    del table  # the text of a long list is larger than all that is made from it
    pa.default_memory_pool().release_unused()
    _validate_distinct(path, utterances, enrol, test)
    return Trials(utterances, enrol, test, is_target)


def encode_pairs(
    enrol: pa.ChunkedArray, test: pa.ChunkedArray
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the distinct ids of two text columns, and each column as int32 indices into them."""
    with ThreadPoolExecutor(2) as pool:
        (first, of_enrol), (second, of_test) = pool.map(_encode, (enrol, test))
    place = pc.index_in(second, first).fill_null(-1).to_numpy()
    new = place < 0  # not in the first column
    place = np.where(new, len(first) - 1 + np.cumsum(new), place).astype(np.int32)
    utterances = first.to_pylist() + second.filter(pa.array(new)).to_pylist()
    return utterances, of_enrol, place[of_test]


def _encode(column: pa.ChunkedArray) -> tuple[pa.StringArray, np.ndarray]:
    chunks = column.dictionary_encode().chunks  # they share one dictionary
    return chunks[-1].dictionary, np.concatenate([chunk.indices.to_numpy() for chunk in chunks])


def pair_keys(enrol: np.ndarray, test: np.ndarray, utterances: int) -> np.ndarray:
    """Return one int64 number for each ordered pair of indices below ``utterances``."""
    return enrol * np.int64(utterances) + test


def _validate_distinct(
    path: Path, utterances: Sequence[str], enrol: np.ndarray, test: np.ndarray
) -> None:
    keys = pair_keys(enrol, test, len(utterances))
    ordered = np.sort(keys)
    if not (ordered[1:] == ordered[:-1]).any():
        return
    again = np.setdiff1d(np.arange(len(keys)), np.unique(keys, return_index=True)[1])
    lines = [f"line {i + 1}, {utterances[enrol[i]]} {utterances[test[i]]}" for i in again[:2]]
    raise SvError(
        f"{path}: {len(again)} of {len(keys)} trials are listed twice (first: {'; '.join(lines)}); "
        f"none is dropped here; choose which to keep (the first ones: awk '!seen[$1,$2]++')"
    )


def write_trials(path: Path, rows: list[tuple[str, str, bool]]) -> None:
    """Write ``(enrol, test, is_target)`` rows in order; an unchanged file keeps its time."""
    with replacing(path, keep_if_same=True) as file:
        file.writelines(f"{e} {t} {'target' if y else 'nontarget'}\n" for e, t, y in rows)


def write_scores(path: Path, trials: Trials, scores: np.ndarray) -> np.ndarray:
    """Write ``enrol test score`` lines.

    Args:
        path: The file.
        trials: The list; the lines are in its order.
        scores: (trials,) float32 or float64, written with the fewest digits that give the same
            number when read, so that metrics of the file are those of the scores.

    Returns:
        (trials,) float64, the numbers that a reader of the file gets: a float32 score is 0.1 in
        the file and 0.10000000149 in float64.
    """
    written = np.empty(len(scores))
    names = pc.binary_join_element_wise(pa.array(trials.utterances), "", " ")
    with replacing(path, mode="wb") as file:
        for start in range(0, len(scores), _WRITE_LINES):
            part = slice(start, start + _WRITE_LINES)
            numbers = pa.array(scores[part]).cast(pa.string())
            written[part] = numbers.cast(pa.float64())
            lines = pc.binary_join_element_wise(
                names.take(pa.array(trials.enrol[part])),
                names.take(pa.array(trials.test[part])),
                numbers,
                "\n",
                "",
            )
            # The array's own memory is the text: its values, one after the other.
            file.write(lines.buffers()[2])
    return written


def read_models(trials: Path) -> dict[str, tuple[str, ...]]:
    """Read the enrolment models of a trial list: name -> utterances; empty if it has none.

    Raises:
        SvError: See `sv.kaldi.data_dir.read_table`.
    """
    path = trials.with_name(f"{trials.name}.models")
    if not path.exists():
        return {}
    return {model: tuple(words.split()) for model, words in read_table(path).items()}


def write_models(trials: Path, models: dict[str, tuple[str, ...]]) -> None:
    """Write the enrolment models of a trial list."""
    path = trials.with_name(f"{trials.name}.models")
    write_table(path, {key: " ".join(words) for key, words in models.items()})
