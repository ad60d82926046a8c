"""CN-Celeb's evaluation part (v2 of the archive), in both of its enrolment protocols.

The list ``cnceleb`` enrols the concatenated file of each of the 196 models, ``cnceleb_avg`` the
mean embedding of the files that it was made from (``eval/lists/enroll.map``). Published figures
are of one or the other, and differ. The lists name ``.wav`` files, the files are ``.flac``.
"""

import logging
from pathlib import Path

from local.corpora import Count, Remark, Request, keep_scorable
from sv.data.cuts import Utterance, write_data_set
from sv.errors import SvError, UsageError
from sv.files import read_text
from sv.kaldi.data_dir import MAX_LISTED
from sv.kaldi.trials import write_models, write_trials

SET = "cnceleb"
CONCATENATED, AVERAGED = "cnceleb", "cnceleb_avg"
# One count of the v2 archive by a public toolkit, 2025: 196 models x 17,777 utterances.
MODELS, TESTS, TRIALS = 196, 17_777, 3_484_292
SUFFIXES = (".flac", ".wav")
Files = dict[str, Path | None]


def check(request: Request) -> list[Count]:
    """Count models, test utterances and trials against the published numbers."""
    lists = Lists(request.corpus / "eval" / "lists")
    files = _locate(request, lists)
    paths = tuple(path for path in files.values() if path)
    return [
        Count(SET, "models", len(lists.enrol), MODELS),
        Count(SET, "test utterances", len({test for _, test, _ in lists.trials}), TESTS),
        Count(SET, "trials", len(lists.trials), TRIALS),
        Count(SET, "audio files", len(paths), len(files), paths),
    ]


class Lists:
    """The four lists of eval/lists, by utterance id."""

    def __init__(self, folder: Path) -> None:
        self.trials: list[tuple[str, str, bool]] = []
        self.enrol: dict[str, str] = {}  # model -> file below eval
        self.sources: dict[str, list[str]] = {}  # model -> files below data
        self.test: dict[str, str] = {}  # utterance -> file below eval
        for words in _read(folder / "enroll.lst", 2):
            self.enrol[words[0]] = words[1]
        for words in _read(folder / "enroll.map", None):
            self.sources[words[0]] = words[1:]
        for number, (model, test, label) in enumerate(_read(folder / "trials.lst", 3), 1):
            if label not in ("0", "1") or model not in self.enrol:
                raise SvError(f"{folder / 'trials.lst'}: line {number}: '{model} {test} {label}'")
            key = Path(test).stem
            self.test[key] = test
            self.trials.append((model, key, label == "1"))


def _read(path: Path, columns: int | None) -> list[list[str]]:
    rows = [line.split() for line in read_text(path).splitlines() if line.strip()]
    for number, words in enumerate(rows, 1):
        if len(words) != columns if columns else len(words) < 2:
            expected = columns or "two or more"
            raise SvError(f"{path}: line {number}: expected {expected} columns, not {words}")
    return rows


def find_missing(request: Request) -> dict[str, str]:
    """Look for the folder of the lists: all protocols need it."""
    folder = request.corpus / "eval" / "lists"
    if not folder.is_dir():
        raise SvError(f"no such folder {folder}: unpack cn-celeb_v2.tar.gz, see --corpora")
    return {}


def prepare(request: Request) -> list[Remark]:
    """Write the set cnceleb and the lists of the protocols that the recipe names.

    Raises:
        SvError: A list or a file of a list is missing.
    """
    names = [name for name, data_set in request.trials.items() if data_set == SET]
    if unknown := [name for name in names if name not in (CONCATENATED, AVERAGED)]:
        raise UsageError(f"[trials] {unknown[0]}: the lists of {SET} are cnceleb, cnceleb_avg")
    lists = Lists(request.corpus / "eval" / "lists")
    files = _locate(request, lists)
    if missing := [key for key, path in files.items() if path is None]:
        text = f"{SET}: {len(missing)} of {len(files)} files missing ({missing[:MAX_LISTED]})"
        if not request.allow_partial:
            raise SvError(f"{text}; complete {request.corpus} or give --allow-partial true")
        logging.warning(text)
    utterances = (Utterance(key, key[:7], path, _label(key)) for key, path in files.items() if path)
    kept = set(write_data_set(request.data, SET, utterances, nj=request.nj))
    remarks = []
    for name in names:
        models = {model: (model,) for model in lists.enrol}
        if name == AVERAGED:
            models = {
                _name_average(key): tuple(map(_name_source, files))
                for key, files in lists.sources.items()
            }
        remarks += _write_list(request, name, lists, models, kept)
    return remarks


def _locate(request: Request, lists: Lists) -> Files:
    """Find the file of every utterance that a list of the recipe needs; None if it is missing."""
    wanted = {key: f"eval/{file}" for key, file in lists.test.items()}
    if request.trials.get(CONCATENATED) == SET:
        wanted |= {model: f"eval/{file}" for model, file in lists.enrol.items()}
    if request.trials.get(AVERAGED) == SET:
        wanted |= {
            _name_source(word): f"data/{word}" for words in lists.sources.values() for word in words
        }
    return {key: _find(request.corpus / file) for key, file in wanted.items()}


def _name_source(word: str) -> str:
    """Return ``id00800-data-singing-01-001`` for ``id00800/singing-01-001.wav``.

    Without the middle part it could be the id of a test utterance.
    """
    return f"{Path(word).parent.name}-data-{Path(word).stem}"


def _name_average(model: str) -> str:
    """Return ``id00800-average`` for ``id00800-enroll``, the concatenated utterance."""
    return f"{model[:7]}-average"


def _find(path: Path) -> Path | None:
    for suffix in SUFFIXES:
        candidate = path.with_suffix(suffix)
        if candidate.is_file():
            return candidate
    return None


def _label(key: str) -> dict[str, str]:
    # id00800-singing-01-001, id00800-data-singing-01-001: the genre; concatenated files have none.
    words = key.removeprefix(f"{key[:7]}-").removeprefix("data-").split("-")
    return {"genre": words[0]} if len(words) == 3 else {}


def _write_list(
    request: Request, name: str, lists: Lists, models: dict[str, tuple[str, ...]], kept: set[str]
) -> list[Remark]:
    # A model without one of its files would be another model.
    whole = {model: words for model, words in models.items() if kept.issuperset(words)}
    trials = lists.trials
    if name == AVERAGED:
        trials = [(_name_average(enrol), test, target) for enrol, test, target in trials]
    rows, remarks = keep_scorable(
        name, trials, kept - models.keys() | whole.keys(), allow_partial=request.allow_partial
    )
    path = request.data / "trials" / name
    write_trials(path, rows)
    if name == AVERAGED:
        write_models(path, whole)
    if len(lists.trials) != TRIALS:
        text = f"its list has {len(lists.trials)} trials, that of CN-Celeb v2 {TRIALS}"
        remarks = [Remark(name, text), *remarks]
    return remarks
