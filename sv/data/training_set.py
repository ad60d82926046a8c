"""From feature directories to a training set: filters, speaker map, held-out trials, crop index."""

import hashlib
import itertools
import logging
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from sv.data.config import TrainingSetConfig, read_front_end
from sv.data.crops import CropIndex, build_crop_index, save_crop_index
from sv.errors import SvError
from sv.files import read_text, write_json
from sv.kaldi.data_dir import read_feats, read_table, write_data_dir, write_table
from sv.kaldi.trials import write_trials

CLEAN = "clean"  # the kind of the original utterances


def make_training_set(
    clean_dir: Path, copy_dirs: Sequence[Path], egs_dir: Path, config: TrainingSetConfig
) -> None:
    """Make ``egs_dir``: crop index, speaker map, held-out utterances and trials.

    Args:
        clean_dir: Data directory with features of the original utterances.
        copy_dirs: Its augmented copies, named ``<clean>_<kind>``, utterances ``<id>-<kind>``.
        egs_dir: Gets ``train.npz``, ``utterances``, ``spk2int``, ``valid/`` (a data directory with
            ``trials``) and ``egs.json``.
        config: The filters.

    Raises:
        SvError: A table is missing, the filters leave too little, or the copies' features were
            made by another front end.
    """
    utt2spk = read_table(clean_dir / "utt2spk")
    feats, frames = read_feats(clean_dir / "feats.scp", clean_dir / "utt2num_frames")
    copies = {CLEAN: feats}
    for copy_dir in copy_dirs:
        kind = copy_dir.name.removeprefix(f"{clean_dir.name}_")
        table = read_table(copy_dir / "feats.scp")
        copies[kind] = {key.removesuffix(f"-{kind}"): entry for key, entry in table.items()}
    kept = _keep(sorted(utt2spk), lambda u: u in feats, "without features")
    kept = _keep(
        kept, lambda u: frames[u] >= config.min_frames, f"shorter than {config.min_frames} frames"
    )
    for kind, table in copies.items():
        kept = _keep(kept, lambda u, t=table: u in t, f"without a {kind} copy")
    counts = Counter(utt2spk[u] for u in kept)
    kept = _keep(
        kept,
        lambda u: counts[utt2spk[u]] >= config.min_utterances,
        f"of speakers with fewer than {config.min_utterances} utterances",
    )
    speakers = sorted({utt2spk[u] for u in kept})
    if len(speakers) < max(2, config.valid_speakers):
        raise SvError(
            f"{clean_dir}: only {len(speakers)} speakers are left; see [set] in train.toml"
        )
    front_end = read_front_end(copies)
    held_out = _hold_out(kept, utt2spk, speakers, config)
    train = [u for u in kept if u not in held_out]

    spk2int = {speaker: i for i, speaker in enumerate(speakers)}
    labels = {u: spk2int[utt2spk[u]] for u in train}
    index = build_crop_index(train, labels, copies)
    valid = sorted(held_out)
    write_data_dir(
        egs_dir / "valid",
        {u: utt2spk[u] for u in valid},
        feats_scp={u: feats[u] for u in valid},
        utt2num_frames={u: frames[u] for u in valid},
    )
    rows = [(a, b, utt2spk[a] == utt2spk[b]) for a, b in itertools.combinations(valid, 2)]
    write_trials(egs_dir / "valid" / "trials", rows)
    write_table(egs_dir / "spk2int", spk2int)
    write_table(egs_dir / "utterances", {u: utt2spk[u] for u in train})
    save_crop_index(egs_dir / "train.npz", index)
    summary = {
        "set": clean_dir.name,
        "kinds": list(copies),
        "speakers": len(speakers),
        "utterances": len(train),
        "frames": int(index.rows[0].sum()),
        "input_dim": index.columns,
        "features": front_end,
        "held_out": len(held_out),
        "config": asdict(config),
    }
    write_json(egs_dir / "egs.json", summary, keep_if_same=True)
    logging.info(
        "%s: %d utterances of %d speakers in %d kinds (%s), %d held out",
        egs_dir, len(train), len(speakers), len(copies), " ".join(copies), len(held_out),
    )  # fmt: skip


def make_cohort_dir(data_dir: Path, utterances: Path, per_speaker: int, cohort_dir: Path) -> None:
    """Make a data directory of the first clean utterances of each speaker, in C order.

    Args:
        data_dir: The training set, with features.
        utterances: Table of the utterances that were trained on and their speakers.
        per_speaker: At most so many of each.
        cohort_dir: The directory to make; unchanged tables keep their time.

    Raises:
        SvError: A table is missing, or an utterance has no features.
    """
    of_speaker, chosen = Counter(), {}
    for utterance, speaker in sorted(read_table(utterances).items()):
        of_speaker[speaker] += 1
        if of_speaker[speaker] <= per_speaker:
            chosen[utterance] = speaker
    names = ("feats.scp", "utt2num_frames", "utt2dur")
    tables = {name: read_table(data_dir / name) for name in names}
    if missing := sorted(chosen.keys() - set.intersection(*map(set, tables.values()))):
        raise SvError(
            f"{data_dir}: {len(missing)} of the {len(chosen)} utterances chosen from {utterances} "
            f"are missing (first: {missing[0]}); make stages 3 and 4 again"
        )
    write_data_dir(
        cohort_dir,
        chosen,
        **{name: {u: table[u] for u in chosen} for name, table in tables.items()},
    )
    # Archives made anew can have the very same table; what reads it must see that they are new.
    source, made = data_dir / "feats.scp", cohort_dir / "feats.scp"
    time_ns = source.stat().st_mtime_ns  # older, where a backup was moved back
    if time_ns != made.stat().st_mtime_ns:
        os.utime(made, ns=(time_ns, time_ns))


def hash_training_set(egs_dir: Path, index: CropIndex) -> str:
    """Return a SHA-256 of a training set: speakers, utterances, kinds and features.

    The paths of its archives are left out: a set may move to another disk.
    """
    digest = hashlib.sha256()
    for name in ("spk2int", "utterances"):
        digest.update(read_text(egs_dir / name).encode())
    form = (index.kinds, index.columns, index.item_bytes, index.content_sha256)
    digest.update(str(form).encode())
    return digest.hexdigest()


def _keep(utterances: list[str], wanted: Callable[[str], bool], what: str) -> list[str]:
    """Keep the wanted utterances; log how many are dropped, ``what`` saying which these are."""
    kept = [u for u in utterances if wanted(u)]
    if len(kept) < len(utterances):
        dropped = sorted(set(utterances) - set(kept))
        logging.warning(
            "dropped %d of %d utterances %s (first: %s)",
            len(dropped), len(utterances), what, dropped[0],
        )  # fmt: skip
    return kept


def _hold_out(
    utterances: list[str], utt2spk: dict[str, str], speakers: list[str], config: TrainingSetConfig
) -> set[str]:
    """Draw the validation utterances: the same number from each of some speakers."""
    rng = random.Random(config.seed)
    chosen = set(rng.sample(speakers, config.valid_speakers))
    of_speaker: dict[str, list[str]] = {}  # C order may part a speaker's: mark-1, mark-2-1, mark-3
    for utterance in utterances:
        of_speaker.setdefault(utt2spk[utterance], []).append(utterance)
    held_out: set[str] = set()
    for speaker, spoken in of_speaker.items():
        if speaker in chosen:
            held_out.update(rng.sample(spoken, config.valid_utterances))
    return held_out
