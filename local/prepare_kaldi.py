"""A finished Kaldi data folder: ``<path>/<set>/{wav.scp,utt2spk}``, perhaps segments and trials.

``[speech.<any>] kind = "kaldi"`` in corpora.toml reads the sets of the recipe that have a folder
below ``path``. The trials of a set are ``<set>/<list>``, else ``<set>/trials``, else where
``lists`` says. wav.scp names files, relative ones from the folder that holds ``path``, where
Kaldi's scripts run. It may be somebody else's, so its commands (``sph2pipe ... |``) are not run.
Segments are cut once, into FLAC below ``data/audio``: an utterance of ours is a whole file.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from local.corpora import Count, Remark, Request, Rows, keep_scorable
from sv.data.audio import cut_to_flac
from sv.data.cuts import Utterance, refuse_losses, write_data_set
from sv.data.parallel import log_progress, map_chunks
from sv.errors import SvError
from sv.files import validate_name
from sv.kaldi.data_dir import read_table, write_table
from sv.kaldi.trials import find_trial_columns, read_trials, write_trials

Spans = dict[str, tuple[float, float]]  # utterance -> start and end in its recording, in seconds
TO_THE_END = -1.0  # Kaldi's end of a segment that ends with its recording


def find_missing(request: Request) -> dict[str, str]:
    """Return the lists that are not there, with the reason; errors as `list_sets`."""
    sets = list_sets(request)
    missing = {}
    for trials, name in request.trials.items():
        if name in sets:
            try:
                find_list(request, trials, name)
            except SvError as error:
                missing[trials] = str(error)
    return missing


def prepare(request: Request) -> list[Remark]:
    """Write the recipe's sets and trial lists that the folder has."""
    found = {name: read_utterances(request.corpus / name) for name in list_sets(request)}
    lists = {
        trials: find_list(request, trials, name)
        for trials, name in request.trials.items()
        if name in found
    }
    kept: dict[str, set[str]] = {}
    for name, (utterances, spans) in found.items():
        whole = cut_segments(request.data / "audio", name, utterances, spans, request.nj)
        kept[name] = set(write_data_set(request.data, name, whole, nj=request.nj))
    remarks = []
    for trials, path in lists.items():
        rows, lost = keep_scorable(
            trials,
            read_rows(path),
            kept[request.trials[trials]],
            allow_partial=request.allow_partial,
        )
        write_trials(request.data / "trials" / trials, rows)
        remarks += lost
    return remarks


def check(request: Request) -> list[Count]:
    """Count utterances and speakers of each set."""
    counts = []
    for name in list_sets(request):
        folder = request.corpus / name
        utterances, _ = read_utterances(folder)
        speakers = len({utterance.speaker_id for utterance in utterances})
        paths = tuple(sorted({utterance.path for utterance in utterances}))
        what = f"utterances of {speakers} speakers in {folder}"
        counts.append(Count(f"speech {name}", what, len(utterances), None, paths))
    return counts


def list_sets(request: Request) -> list[str]:
    """List the recipe's sets that have a folder here; others may be another corpus's.

    Raises:
        SvError: None has, or the folder is the one that the recipe writes to.
    """
    wanted = sorted({request.train, *request.trials.values()})
    sets = [name for name in wanted if (request.corpus / name / "utt2spk").is_file()]
    if not sets:
        raise SvError(
            f"{request.corpus}: no Kaldi data directory {' or '.join(wanted)} (with utt2spk) in it"
        )
    if request.corpus.resolve() == request.data.resolve():
        raise SvError(f"{request.data}: stage 1 would overwrite these tables; give another --data")
    return sets


def read_utterances(folder: Path) -> tuple[list[Utterance], Spans]:
    """Read a data directory; ``path`` of an utterance is its recording's.

    Raises:
        SvError: A table is missing or not valid, wav.scp has commands, or a recording is missing.
    """
    scp, base = folder / "wav.scp", folder.resolve().parents[1]
    recordings, utt2spk = read_table(scp), read_table(folder / "utt2spk")
    if commands := [key for key, value in recordings.items() if value.endswith("|")]:
        raise SvError(
            f"{scp}: {len(commands)} of {len(recordings)} entries are commands, not files (first: "
            f"'{commands[0]}'), and are not run: write what each prints to a file and name that"
        )
    first = next(iter(recordings.values()))
    if not (base / first).exists():
        raise SvError(f"{scp}: no such file {base / first} (relative paths are from {base})")
    spans, of_utterance = read_segments(folder / "segments")
    if lost := [u for u in utt2spk if of_utterance.get(u, u) not in recordings]:
        raise SvError(f"{scp}: no recording of {len(lost)} utterances (first: {lost[0]})")
    return [
        Utterance(utterance, speaker, base / recordings[of_utterance.get(utterance, utterance)])
        for utterance, speaker in utt2spk.items()
    ], spans


def read_segments(path: Path) -> tuple[Spans, dict[str, str]]:
    """Read ``<utterance> <recording> <start> <end>``: spans and recordings; empty without a file.

    Raises:
        SvError: A line is not of this form.
    """
    spans: Spans = {}
    recordings: dict[str, str] = {}
    for utterance, text in read_table(path).items() if path.exists() else ():
        try:
            recordings[utterance], start_s, end_s = text.split()
            start, end = float(start_s), float(end_s)
            if not (0 <= start < end < math.inf or (0 <= start < math.inf and end == TO_THE_END)):
                raise ValueError
        except ValueError:
            form = "<recording> <start> <end>, in seconds"
            raise SvError(f"{path}: '{utterance}': expected {form}, not '{text}'") from None
        spans[utterance] = start, math.inf if end == TO_THE_END else end
    return spans, recordings


def find_list(request: Request, trials: str, data_set: str) -> Path:
    """Return the file of a trial list.

    Raises:
        SvError: There is none.
    """
    folder = request.corpus / data_set
    places = [folder / trials, folder / "trials", request.lists / trials, request.lists]
    if found := next((path for path in places if path.is_file()), None):
        return found
    raise SvError(f"no trial list '{trials}': none of {', '.join(map(str, places[:3]))}")


def read_rows(path: Path) -> Rows:
    """Read a trial list of any known form; errors as `sv.kaldi.trials.read_trials`."""
    trials = read_trials(path, find_trial_columns(path))
    ids, is_target = trials.utterances, trials.is_target.tolist()
    pairs = zip(trials.enrol, trials.test, is_target, strict=True)
    return [(ids[enrol], ids[test], target) for enrol, test, target in pairs]


def cut_segments(
    folder: Path, name: str, utterances: list[Utterance], spans: Spans, nj: int
) -> list[Utterance]:
    """Cut segments out of their recordings: ``<folder>/<set>/<speaker>/<utterance>.flac``.

    ``<folder>/<set>.segments`` has what each was cut from: one that is the same is not cut again.
    Without segments the utterances are whole recordings, and returned as they are.
    """
    if not spans:
        return utterances
    if lost := [u.utterance_id for u in utterances if u.utterance_id not in spans]:
        raise SvError(f"{name}: segments lacks {len(lost)} utterances (first: {lost[0]})")
    record = folder / f"{name}.segments"
    before = read_table(record) if record.exists() else {}
    made, todo, cut = {}, [], []
    for utterance in utterances:
        key, speaker = utterance.utterance_id, utterance.speaker_id
        validate_name(key, f"{name}: the utterance")
        target = folder / name / validate_name(speaker, f"{name}: the speaker") / f"{key}.flac"
        made[key] = describe_segment(utterance.path, spans[key])
        if made[key] != before.get(key) or not target.is_file():
            todo.append((utterance, target))
        cut.append(replace(utterance, path=target))
    bad: dict[str, str] = {}
    parts = map_chunks(_cut_chunk, todo, spans, nj=nj)
    for _, failed in log_progress(
        parts, f"{name}: segments", total=len(todo), count=lambda p: p[0]
    ):
        bad |= failed
    refuse_losses(name, list(bad.values()), len(utterances))
    write_table(record, {key: text for key, text in made.items() if key not in bad})
    return [utterance for utterance in cut if utterance.utterance_id not in bad]


def describe_segment(recording: Path, span: tuple[float, float]) -> str:
    """Return what a segment is cut from: its span, and its recording by size and time."""
    try:
        status = recording.stat()
    except OSError:  # `cut_to_flac` says which
        return "nothing"
    return f"{span[0]} {span[1]} {status.st_size} {status.st_mtime_ns} {recording}"


def _cut_chunk(items: Sequence[tuple[Utterance, Path]], spans: Spans) -> tuple[int, dict[str, str]]:
    """Cut some segments; return their number, and those that cannot be, with the reason."""
    bad = {}
    for utterance, target in items:
        key = utterance.utterance_id
        try:
            cut_to_flac(utterance.path, target, *spans[key])
        except SvError as error:
            bad[key] = f"'{key}': {error}"
    return len(items), bad
