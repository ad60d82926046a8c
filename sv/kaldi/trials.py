"""Trial lists (``enrol test target|nontarget``) and score files (``enrol test score``).

They are read with pyarrow: the largest list of the study has 9.7 million lines, and a Python loop
over them costs more than the scoring. Enrolment models of several utterances are in
``data/trials/<name>.models``, in the form of spk2utt: the first word of a trial is then a model,
whose embedding is the mean of its utterances' embeddings. A list without this file enrols single
utterances.

Files of other toolkits are read too; their columns are recognised by their content. Known forms,
of lists: ``enrol test target|nontarget`` (Kaldi, WeSpeaker, Kiwano, CN-Celeb with 1 and 0) and
``1 enrol test`` (VoxCeleb's own); of scores: ``enrol test score`` (Kaldi, Kiwano),
``enrol test score label`` with whatever follows (WeSpeaker) and ``enrol test label score``
(SpeechBrain). Words may be separated by any spaces or tabs, lines may end in CRLF, and the file
may be packed by gzip. An id is also known without the ending of an audio file and with '-' for '/'
(`plain_id`): toolkits write the same utterance in these ways.

A pair may stand in a list more than once, as in the official lists E and H of VoxCeleb1: it counts
as often as it stands, as other toolkits count it.
"""

import io
import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv

from sv.errors import SvError, UsageError
from sv.files import is_packed, open_unpacked, replacing
from sv.kaldi.data_dir import read_table, write_table, written

TRIAL_COLUMNS = ("enrol", "test", "label")
SCORE_COLUMNS = ("enrol", "test", "score")
IGNORED = "-"
OWN_LABELS = {"target": True, "nontarget": False}
LABELS = {
    **dict.fromkeys(("target", "tgt", "true", "1"), True),
    **dict.fromkeys(("nontarget", "imp", "impostor", "false", "0"), False),
}  # of words in lower case
_HEAD_BYTES = 1 << 16  # by which columns are recognised: a thousand lines
_MOST = 0.5  # of the words decide what a column is; one that does not fit is named on reading
_BLANKS = re.compile(rb"  +")
_ENDING = re.compile(r"\.(wav|flac|m4a|mp3|aac|sph|ogg|opus)$", re.IGNORECASE)
_BLOCK_BYTES = 1 << 24
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


def read_trials(path: Path, columns: Sequence[str] | None = None) -> Trials:
    """Read a trial list.

    Args:
        path: The list.
        columns: Those of another toolkit's list (`find_trial_columns`); None: the list is ours,
            lines ``enrol test target|nontarget`` with single spaces.

    Raises:
        SvError: A line has other columns, a label is unknown, a trial is listed with both labels,
            or the file is empty.
    """
    if columns is None:
        types = dict.fromkeys(("enrol", "test", "target|nontarget"), pa.string())
        table, labels = _read_table(path, types), OWN_LABELS
    else:
        table, labels = read_columns(path, columns).select(TRIAL_COLUMNS), LABELS
    words, indices = _encode(table.column(2))
    fold = str if columns is None else str.lower
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
    trials = Trials(utterances, enrol, test, is_target)
    if repeated := count_repeated(trials, path):
        logging.warning("%s: %s", path, describe_repeated(repeated, len(is_target)))
    return trials


def count_repeated(trials: Trials, path: Path) -> int:
    """Count the trials of a list that stand in it a second time.

    Raises:
        SvError: Some of them have two labels.
    """
    keys = pair_keys(trials.enrol, trials.test, len(trials.utterances))
    ordered = np.sort(2 * keys + trials.is_target)
    same = ordered[1:] >> 1 == ordered[:-1] >> 1
    if (both := ordered[1:][same & (ordered[1:] != ordered[:-1])] >> 1).size:
        lines = np.flatnonzero(keys == both[0])
        labelled = (f"line {i + 1}, {'non' * (not trials.is_target[i])}target" for i in lines)
        names = (trials.utterances[indices[lines[0]]] for indices in (trials.enrol, trials.test))
        raise SvError(
            f"{path}: {len(both)} trials are listed with both labels (first: {' '.join(names)}: "
            f"{'; '.join(labelled)}); keep the right ones"
        )
    return int(np.count_nonzero(same))


def describe_repeated(repeated: int, total: int) -> str:
    """Say how trials that are listed more than once are counted."""
    return f"{repeated} of {total} trials repeat an earlier one; each counts as often as it stands"


def plain_id(name: str) -> str:
    """Return an id without the ending of an audio file and with '-' for '/'."""
    return _ENDING.sub("", name).replace("/", "-")


def find_places(names: Sequence[str], known: Sequence[str]) -> np.ndarray:
    """Return the place of each name among ``known``, -1 of those that are not there.

    A name that is not there as it stands is looked up by its `plain_id`, if only one has it.
    """
    place = {name: i for i, name in enumerate(known)}
    places = [place.get(name, -1) for name in names]
    if -1 in places:
        plain: dict[str, int] = {}
        for i, name in enumerate(known):
            key = plain_id(name)
            plain[key] = -1 if key in plain else i
        looked_up = zip(names, places, strict=True)
        places = [plain.get(plain_id(name), -1) if i < 0 else i for name, i in looked_up]
    return np.array(places, dtype=np.int64)


def read_columns(path: Path, columns: Sequence[str]) -> pa.Table:
    """Read a file with these columns: a table of text, and of float64 where it is the score.

    Raises:
        SvError: A line has other columns, or a score is not a number (NaN and infinity are read).
    """
    types = {
        f"{name}{i}" if name == IGNORED else name: pa.float64() if name == "score" else pa.string()
        for i, name in enumerate(columns)
    }
    try:
        return _read_table(path, types)
    except SvError:
        if not path.is_file():
            raise
    return _read_table(path, types, source=_even_blanks(path))  # perhaps its spaces are uneven


def _read_table(
    path: Path, types: Mapping[str, pa.DataType], *, source: IO[bytes] | None = None
) -> pa.Table:
    """Read columns with one space between them, from ``source`` if it is given."""
    try:
        # Of a file that is not packed pyarrow reads a block ahead by itself.
        table = pv.read_csv(
            source or (open_unpacked(path) if is_packed(path) else path),
            read_options=pv.ReadOptions(column_names=list(types), block_size=_READ_BYTES),
            parse_options=pv.ParseOptions(delimiter=" ", quote_char=False),
            convert_options=pv.ConvertOptions(
                column_types=types, strings_can_be_null=False, null_values=[]
            ),
        )
    except (OSError, EOFError) as error:
        raise SvError(f"cannot read {path}: {error}") from error
    except pa.ArrowInvalid as error:
        message = str(error).splitlines()[0]
        raise SvError(f"{path}: expected lines '{' '.join(types)}': {message}") from error
    if table.num_rows == 0:
        raise SvError(f"{path}: empty")
    return table


def _parse_columns(text: str, wanted: Sequence[str], option: str) -> tuple[str, ...]:
    columns = tuple(text.split(","))
    if sorted(name for name in columns if name != IGNORED) != sorted(wanted):
        raise UsageError(
            f"{option} {text}: must name {', '.join(wanted)} once each, in the order of the file, "
            f"separated by commas, with {IGNORED} for a column to ignore"
        )
    return columns


def find_trial_columns(path: Path, given: str | None = None) -> tuple[str, ...]:
    """Recognise the columns of a trial list: that of labels, and the two others in their order.

    ``given``: their names in the order of the file, such as ``label,enrol,test``; ``-`` is ignored.

    Raises:
        SvError: They cannot be recognised, or the file cannot be read.
        UsageError: ``given`` does not name each column once.
    """
    if given:
        return _parse_columns(given, TRIAL_COLUMNS, "--columns")
    columns = _read_head(path)
    labels = _find_kind(columns, _is_label)
    spelt = [i for i in labels if not set(columns[i]) <= {"0", "1"}]  # words, so they are not ids
    labels = spelt if len(spelt) == 1 else labels
    if len(columns) != len(TRIAL_COLUMNS) or len(labels) != 1:
        _refuse(path, columns, "the label", "--columns label,enrol,test")
    rest = iter(("enrol", "test"))
    return tuple("label" if i == labels[0] else next(rest) for i in range(len(columns)))


def find_score_columns(
    path: Path, utterances: Collection[str], given: str | None = None
) -> tuple[str, ...]:
    """Recognise the columns of a score file: two of the list's ``utterances``, one of numbers.

    ``given`` and errors: see `find_trial_columns`.
    """
    if given:
        return _parse_columns(given, SCORE_COLUMNS, "--score-columns")
    columns = _read_head(path)
    known = _find_kind(columns, lambda word: word in utterances)
    if len(known) < 2:
        plain = set(map(plain_id, utterances))
        known = _find_kind(columns, lambda word: plain_id(word) in plain)
    numeric, labels = _find_kind(columns, _is_number), _find_kind(columns, _is_label)
    # Else scores of another list; matching them gives a clearer error.
    ids = known if len(known) == 2 else [i for i in range(len(columns)) if i not in numeric][:2]
    numbers = [i for i in numeric if i not in ids]
    if len(numbers) > 1:
        numbers = [i for i in numbers if i not in labels]
    if ids == [0, 1] and 3 in labels:
        numbers = numbers[:1]  # WeSpeaker's: quality measures follow the label
    if len(ids) != 2 or len(numbers) != 1:
        _refuse(path, columns, "the score", "--score-columns enrol,test,score")
    names = {ids[0]: "enrol", ids[1]: "test", numbers[0]: "score"}
    return tuple(names.get(i, IGNORED) for i in range(len(columns)))


def _read_head(path: Path) -> list[tuple[str, ...]]:
    """Read the words of the first lines, a tuple for each column."""
    try:
        with open_unpacked(path) as file:
            head = file.read(_HEAD_BYTES)
    except (OSError, EOFError) as error:
        raise SvError(f"cannot read {path}: {getattr(error, 'strerror', 0) or error}") from error
    lines = head.decode(errors="replace").splitlines()
    if len(head) == _HEAD_BYTES:
        lines.pop()  # it may be incomplete
    rows = [(number, words) for number, line in enumerate(lines, 1) if (words := line.split())]
    if not rows:
        raise SvError(f"{path}: empty")
    usual = Counter(len(words) for _, words in rows).most_common(1)[0][0]
    for number, words in rows:
        if len(words) != usual:
            raise SvError(f"{path}: line {number} has {len(words)} columns, others have {usual}")
    if usual == 1 and "," in rows[0][1][0]:
        raise SvError(
            f"{path}: its columns are separated by commas ('{rows[0][1][0]}'), not by spaces or "
            f"tabs; give tr , ' ' <{path} | and - in its place"
        )
    return list(zip(*(words for _, words in rows), strict=True))


def _even_blanks(path: Path) -> io.BytesIO:
    """Return the text of a file with one space between words and none at the ends of lines."""
    even = io.BytesIO()
    with open_unpacked(path) as file:
        while block := file.read(_BLOCK_BYTES) + file.readline():
            lines = _BLANKS.sub(b" ", block.replace(b"\t", b" ").replace(b"\r\n", b"\n"))
            even.write(lines.replace(b" \n", b"\n").replace(b"\n ", b"\n").removeprefix(b" "))
    even.seek(0)
    return even


def _find_kind(columns: list[tuple[str, ...]], kind: Callable[[str], bool]) -> list[int]:
    return [i for i, words in enumerate(columns) if sum(map(kind, words)) > _MOST * len(words)]


def _is_label(word: str) -> bool:
    return word.lower() in LABELS


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _refuse(path: Path, columns: list[tuple[str, ...]], what: str, how: str) -> NoReturn:
    first = " ".join(words[0] for words in columns)
    raise SvError(
        f"{path}: cannot tell which of {len(columns)} columns is {what} (line 1: '{first}'): "
        f"name it, for example {how}"
    )


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


def write_trials(path: Path, rows: list[tuple[str, str, bool]]) -> None:
    """Write ``(enrol, test, is_target)`` rows in order; an unchanged file keeps its time."""
    written.add(path)
    with replacing(path, keep_if_same=True) as file:
        file.writelines(f"{e} {t} {'target' if y else 'nontarget'}\n" for e, t, y in rows)


def write_scores(path: Path, trials: Trials, scores: np.ndarray) -> np.ndarray:
    """Write ``enrol test score`` lines.

    Args:
        path: The file; unchanged it keeps its time.
        trials: The list; the lines are in its order.
        scores: (trials,) float32 or float64, written with the fewest digits that give the same
            number when read, so that metrics of the file are those of the scores.

    Returns:
        (trials,) float64, the numbers that a reader of the file gets: a float32 score is 0.1 in
        the file and 0.10000000149 in float64.
    """
    written = np.empty(len(scores))
    names = pc.binary_join_element_wise(pa.array(trials.utterances), "", " ")
    with replacing(path, mode="wb", keep_if_same=True) as file:
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
