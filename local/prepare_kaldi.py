"""A finished Kaldi data folder: ``<path>/<set>/{wav.scp,utt2spk}``, perhaps segments and trials.

``[speech.<any>] kind = "kaldi"`` in corpora.toml reads the sets of the recipe that have a folder
below ``path``. The trials of a set are ``<set>/<list>``, else ``<set>/trials``, else where
``lists`` says. wav.scp names files, relative ones from the folder that holds ``path``, where
Kaldi's scripts run. It may be somebody else's, so its commands (``sph2pipe ... |``) are not run.
Segments are cut once, into FLAC below ``data/audio``: an utterance of ours is a whole file.
"""

import math
import os
from pathlib import Path

from local.corpora import Count, Remark, Request, Rows, keep_scorable
from sv.data.audio import Span
from sv.data.cuts import Utterance, write_data_set
from sv.errors import SvError
from sv.kaldi.data_dir import read_table
from sv.kaldi.trials import find_trial_columns, read_trials, write_trials

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
    for name, utterances in found.items():
        kept[name] = set(write_data_set(request.data, name, utterances, nj=request.nj))
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
        utterances = read_utterances(folder)
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


def read_utterances(folder: Path) -> list[Utterance]:
    """Read a data directory.

    Raises:
        SvError: A table is missing or not valid, wav.scp has commands, or a recording is missing.
    """
    # s5, also where s5/data is a link to another disk
    scp, base = folder / "wav.scp", Path(os.path.abspath(folder)).parents[1]
    recordings, utt2spk = read_table(scp), read_table(folder / "utt2spk")
    if commands := [key for key, value in recordings.items() if value.endswith("|")]:
        raise SvError(
            f"{scp}: {len(commands)} of {len(recordings)} entries are commands, not files (first: "
            f"'{commands[0]}'), and are not run: write what each prints to a file and name that"
        )
    first = base / next(iter(recordings.values()), "")
    if not first.exists():
        raise SvError(f"{scp}: no such file {first} (relative paths are from {base})")
    segments = folder / "segments"
    parts = read_segments(segments) if segments.exists() else {u: (u, None) for u in utt2spk}
    if lost := utt2spk.keys() - parts.keys():
        raise SvError(f"{segments}: {len(lost)} utterances missing (first: {min(lost)})")
    if lost := [u for u in utt2spk if parts[u][0] not in recordings]:
        raise SvError(f"{scp}: no recording of {len(lost)} utterances (first: {lost[0]})")
    # As Kaldi's own check: what one table has and another lacks is a mistake in one of them.
    used = {recording for recording, _ in parts.values()}
    of_scp = segments if segments.exists() else folder / "utt2spk"
    for path, lacks, more in (
        (segments, folder / "utt2spk", sorted(parts.keys() - utt2spk.keys())),
        (scp, of_scp, sorted(recordings.keys() - used)),
    ):
        if more:
            raise SvError(
                f"{path}: {len(more)} entries are not in {lacks} (first: {more[0]}); "
                "add them there, or take them out here (Kaldi's utils/fix_data_dir.sh does)"
            )
    return [
        Utterance(utterance, speaker, base / recordings[recording], span=span)
        for utterance, speaker in utt2spk.items()
        for recording, span in [parts[utterance]]
    ]


def read_segments(path: Path) -> dict[str, tuple[str, Span]]:
    """Read ``<utterance> <recording> <start> <end>``: recording and span of each utterance.

    Raises:
        SvError: A line is not of this form.
    """
    parts = {}
    for utterance, text in read_table(path).items():
        try:
            recording, *times = text.split()
            start, end = map(float, times)
            end = math.inf if end == TO_THE_END else end
            if not (0 <= start < end and start < math.inf):
                raise ValueError
        except ValueError:
            form = "<recording> <start> <end>, in seconds"
            raise SvError(f"{path}: '{utterance}': expected {form}, not '{text}'") from None
        parts[utterance] = recording, (start, end)
    return parts


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
