"""Trial lists and score files of any toolkit; the columns are recognised by their content.

Known forms, of lists: ``enrol test target|nontarget`` (Kaldi, WeSpeaker, Kiwano, CN-Celeb with
1 and 0) and ``1 enrol test`` (VoxCeleb's own); of scores: ``enrol test score`` (Kaldi, Kiwano),
``enrol test score label`` with whatever follows (WeSpeaker) and ``enrol test label score``
(SpeechBrain). Words may be separated by any spaces or tabs, lines may end in CRLF.
"""

import io
import re
from collections import Counter
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import NoReturn

import pyarrow as pa

from sv.errors import SvError, UsageError
from sv.kaldi.trials import Trials, build_trials, read_columns

TRIAL_COLUMNS = ("enrol", "test", "label")
SCORE_COLUMNS = ("enrol", "test", "score")
IGNORED = "-"
LABELS = {
    **dict.fromkeys(("target", "tgt", "true", "1"), True),
    **dict.fromkeys(("nontarget", "imp", "impostor", "false", "0"), False),
}  # of words in lower case
_HEAD_BYTES = 1 << 16  # by which columns are recognised: a thousand lines
_BLOCK_BYTES = 1 << 24
_MOST = 0.5  # of the words decide what a column is; one that does not fit is named on reading
_UNEVEN = re.compile(rb"\t|  |^ | \r?$", re.MULTILINE)  # anything but single spaces between words
_BLANKS = re.compile(rb"  +")


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
    labels = [i for i, words in enumerate(columns) if _are_mostly(_is_label, words)]
    spelt = [i for i in labels if not set(columns[i]) <= {"0", "1"}]  # words, so they are not ids
    labels = spelt if len(spelt) == 1 else labels
    if len(columns) != len(TRIAL_COLUMNS) or len(labels) != 1:
        _refuse(path, columns, "the label", "--columns label,enrol,test")
    rest = iter(("enrol", "test"))
    return tuple("label" if i == labels[0] else next(rest) for i in range(len(columns)))


def find_score_columns(
    path: Path, utterances: Container[str], given: str | None = None
) -> tuple[str, ...]:
    """Recognise the columns of a score file: two of the list's ``utterances``, one of numbers.

    ``given`` and errors: see `find_trial_columns`.
    """
    if given:
        return _parse_columns(given, SCORE_COLUMNS, "--score-columns")
    columns = _read_head(path)
    known, numeric, labels = (
        [i for i, words in enumerate(columns) if _are_mostly(kind, words)]
        for kind in (lambda word: word in utterances, _is_number, _is_label)
    )
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


def read_any_trials(path: Path, columns: Sequence[str]) -> Trials:
    """Read a trial list with these columns.

    Raises:
        SvError: A line has other columns, a label is unknown, or a trial is listed twice.
    """
    in_order = read_any_columns(path, columns).select(TRIAL_COLUMNS)
    return build_trials(path, in_order, LABELS, fold=str.lower)


def _read_head(path: Path) -> list[tuple[str, ...]]:
    """Read the words of the first lines, a tuple for each column."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise SvError(f"cannot read {path}: {error.strerror or error}") from error
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
    return list(zip(*(words for _, words in rows), strict=True))


def read_any_columns(path: Path, columns: Sequence[str]) -> pa.Table:
    """Read a file with these columns: a table of text, and of float64 where it is the score.

    Raises:
        SvError: A line has other columns, or a score is not a number (NaN and infinity are read).
    """
    named = {
        f"{name}{i}" if name == IGNORED else name: pa.float64() if name == "score" else pa.string()
        for i, name in enumerate(columns)
    }
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    if not _UNEVEN.search(head):
        try:
            return read_columns(path, named)
        except SvError:  # perhaps uneven spaces further down
            pass
    return read_columns(path, named, source=_even_blanks(path))


def _even_blanks(path: Path) -> io.BytesIO:
    """Return the text of a file with one space between words and none at the ends of lines."""
    even = io.BytesIO()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES) + file.readline():
            lines = _BLANKS.sub(b" ", block.replace(b"\t", b" ").replace(b"\r\n", b"\n"))
            even.write(lines.replace(b" \n", b"\n").replace(b"\n ", b"\n").removeprefix(b" "))
    even.seek(0)
    return even


def _are_mostly(kind: Callable[[str], bool], words: Sequence[str]) -> bool:
    return sum(map(kind, words)) / len(words) > _MOST


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
