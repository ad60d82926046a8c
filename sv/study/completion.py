"""When a stage of a model is finished, so that a walk over many systems need not run it again.

The rule: the last attempt in the stage's sidecar is complete, and every file that the stage was
made from and every file that it made is as the stage found or left it, by size and time (missing
counts, too). ``<energy>/.<stage>.done`` keeps these; it is begun before the stage and completed
after it, so that a stage that failed, was killed, or whose inputs changed under it is not finished.

What follows: a deleted final.pt is trained for again (from the last checkpoint), then extracted and
scored; a changed train.toml starts the trainer, which refuses it; new features are extracted from;
a result moved back from .backup is new to the stages after it; ``--resume false`` skips nothing. A
file touched without a change costs one look by the stage itself. Code and versions are not looked
at. Folders are not in the record, so a tree that was moved with its times kept stays finished.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sv.errors import SvError
from sv.files import read_json, write_json

Prints = dict[str, list[int] | None]


@dataclass(frozen=True)
class Files:
    """What a step reads and writes, in terms of its command line.

    Attributes:
        arguments: Names of the arguments after the options.
        read: Files it reads; ``{egs}`` is an argument, ``{config}`` the value of ``--config``,
            ``{list}`` the last part of the argument ``trials``. A file with an option that is not
            given is left out.
        written: Files it makes.
    """

    arguments: tuple[str, ...]
    read: tuple[str, ...]
    written: tuple[str, ...]


STEPS = {
    "steps/train_xvector.sh": Files(
        ("egs", "exp"),
        ("{config}", "{egs}/train.npz", "{egs}/spk2int", "{egs}/egs.json", "{egs}/valid/trials"),
        ("{exp}/final.pt", "{exp}/model.json"),
    ),
    "steps/extract_xvectors.sh": Files(
        ("exp", "data", "xvectors"),
        ("{exp}/final.pt", "{data}/feats.scp", "{data}/utt2num_frames"),
        ("{xvectors}/xvector.scp", "{xvectors}/info.json"),
    ),
    "steps/extract_cohort.sh": Files(
        ("exp", "data", "egs", "xvectors"),
        ("{config}", "{exp}/final.pt", "{data}/feats.scp", "{egs}/utterances"),
        ("{xvectors}/xvector.scp", "{xvectors}/utt2spk"),
    ),
    "steps/score_trials.sh": Files(
        ("xvectors", "trials", "scores"),
        ("{config}", "{xvectors}/xvector.scp", "{cohort}/xvector.scp",
         "{trials}", "{trials}.models", "{utt2spk}"),
        ("{scores}/{name}.txt", "{scores}/{name}.json", "{scores}/{name}.boot.json"),
    ),
    "steps/score_untrained.sh": Files(
        ("exp", "data", "trials", "scores"),
        ("{exp}/final.pt", "{data}/feats.scp", "{trials}"),
        ("{scores}/{list}_cosine_untrained.txt", "{scores}/{list}_cosine_untrained.json"),
    ),
}  # fmt: skip


def is_finished(sidecar: Path, command: Sequence[str]) -> bool:
    """Whether a stage is finished, by the rule above.

    Args:
        sidecar: ``exp/<model>/energy/05_train.json``.
        command: What the stage runs: a script of `STEPS`, options, arguments. Another script's
            stage is never finished.
    """
    try:
        record, status = read_json(_get_record(sidecar)), read_json(sidecar).get("status")
    except SvError:
        return False
    return command[0] in STEPS and status == "complete" and record == _take_prints(command)


def begin_stage(sidecar: Path, command: Sequence[str]) -> None:
    """Keep what a stage is made from, and that it is not finished."""
    if command[0] in STEPS:
        write_json(_get_record(sidecar), {**_take_prints(command), "written": None})


def end_stage(sidecar: Path, command: Sequence[str]) -> None:
    """Keep what a stage has made; what it was made from stays as it was at the beginning."""
    if command[0] in STEPS:
        path = _get_record(sidecar)
        write_json(path, {**_take_prints(command), "read": read_json(path)["read"]})


def _get_record(sidecar: Path) -> Path:
    return sidecar.with_name(f".{sidecar.stem}.done")


def _take_prints(command: Sequence[str]) -> dict[str, Prints]:
    files = STEPS[command[0]]
    words = _parse_command(command, files.arguments)
    return {"read": _look_at(files.read, words), "written": _look_at(files.written, words)}


def _parse_command(command: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Give options and arguments by the names that `Files` uses."""
    options, at = {}, 1
    while at + 1 < len(command) and command[at].startswith("--"):
        options[command[at][2:]] = command[at + 1]
        at += 2
    words = options | dict(zip(names, command[at:], strict=True))
    return words | {"list": Path(words.get("trials", "")).name}


def _look_at(patterns: Sequence[str], words: Mapping[str, str]) -> Prints:
    prints: Prints = {}
    for pattern in patterns:
        try:
            stat = Path(pattern.format_map(words)).stat()
        except KeyError:  # of an option that this command does without
            continue
        except OSError:
            prints[pattern] = None
        else:
            prints[pattern] = [stat.st_size, stat.st_mtime_ns]
    return prints
