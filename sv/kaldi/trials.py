"""Trial lists (``enrol test target|nontarget``) and score files (``enrol test score``).

Read with pyarrow: the largest list of the study has 9.7 million lines, and a Python loop over
them costs more than the scoring.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv

from sv.errors import SvError
from sv.files import replacing


@dataclass(frozen=True)
class Trials:
    """A trial list as index arrays into ``utterances``.

    ``enrol`` and ``test`` are (trials,) int32, ``is_target`` is (trials,) bool.
    """

    utterances: list[str]
    enrol: np.ndarray
    test: np.ndarray
    is_target: np.ndarray


def _read_columns(path: Path, names: list[str], types: dict[str, pa.DataType]) -> pa.Table:
    try:
        table = pv.read_csv(
            path,
            read_options=pv.ReadOptions(column_names=names),
            parse_options=pv.ParseOptions(delimiter=" ", quote_char=False),
            convert_options=pv.ConvertOptions(column_types=types, strings_can_be_null=False),
        )
    except OSError as error:
        raise SvError(f"cannot read {path}: {error}") from error
    except pa.ArrowInvalid as error:
        message = str(error).splitlines()[0]
        raise SvError(f"{path}: expected lines '{' '.join(names)}': {message}") from error
    if table.num_rows == 0:
        raise SvError(f"{path}: empty")
    return table


def read_trials(path: Path) -> Trials:
    """Read a trial list.

    Raises:
        SvError: A line is not ``enrol test target|nontarget`` (single spaces), a trial stands
            twice, or the file is empty.
    """
    string = pa.string()
    names = ["enrol", "test", "target|nontarget"]
    table = _read_columns(path, names, dict.fromkeys(names, string))
    labels = table.column(2)
    is_target = pc.equal(labels, "target")
    wrong = pc.invert(pc.or_(is_target, pc.equal(labels, "nontarget")))
    if pc.any(wrong).as_py():
        line = pc.index(wrong, True).as_py()
        raise SvError(
            f"{path}: line {line + 1}: the label must be target or nontarget, "
            f"not '{labels[line].as_py()}'"
        )
    both = pa.chunked_array(table.column(0).chunks + table.column(1).chunks, type=string)
    codes = both.combine_chunks().dictionary_encode()
    indices = codes.indices.to_numpy()
    utterances, n = codes.dictionary.to_pylist(), table.num_rows
    enrol, test = indices[:n], indices[n:]
    pairs, firsts = np.unique(enrol * np.int64(len(utterances)) + test, return_index=True)
    if len(pairs) < n:
        again = np.setdiff1d(np.arange(n), firsts)
        first = f"{utterances[enrol[again[0]]]} {utterances[test[again[0]]]}"
        raise SvError(
            f"{path}: {len(again)} trials stand twice (first: line {again[0] + 1}, {first})"
        )
    return Trials(
        utterances=utterances,
        enrol=enrol,
        test=test,
        is_target=is_target.combine_chunks().to_numpy(zero_copy_only=False),
    )


def write_trials(path: Path, rows: list[tuple[str, str, bool]]) -> None:
    """Write ``(enrol, test, is_target)`` rows as they come; an unchanged file keeps its time."""
    with replacing(path, keep_if_same=True) as file:
        file.writelines(f"{e} {t} {'target' if y else 'nontarget'}\n" for e, t, y in rows)


def write_scores(path: Path, trials: Trials, scores: np.ndarray) -> None:
    """Write ``enrol test score`` lines, scores (trials,) with 7 significant digits."""
    names = pa.array(trials.utterances)
    text = pc.cast(pa.array(np.char.mod("%.7g", scores.astype(np.float64))), pa.string())
    table = pa.table(
        [names.take(pa.array(trials.enrol)), names.take(pa.array(trials.test)), text],
        names=["enrol", "test", "score"],
    )
    options = pv.WriteOptions(include_header=False, delimiter=" ", quoting_style="none")
    with replacing(path, mode="wb") as file:
        pv.write_csv(table, file, options)
