"""The proof that work is finished: the files that it read and wrote, by size and time.

Jobs (utils/run.py, utils/slurm.py) keep their proof next to their log, stages next to their
sidecar. Work is finished while its command is the same and every file in the proof is as the work
found or left it. Work that failed, that was killed, or whose inputs changed while it ran is not.

A job reads and writes the files that its command line, words or a line of shell, names; for the
audio that a manifest names, stage 3 puts a digest there (sv/data/inputs.py). What all jobs of an
array name alike they read: each writes files of its own.

A stage runs a step, a script whose head names its arguments and files; an option stands for its
value, ``<backends...>`` for each word of it in turn, ``<list>`` for the last part of ``<trials>``,
and a file with an option that is not given is left out. The archives that a table (.scp) names
count with it:

    # Usage: steps/train_xvector.sh [options] <egs-dir> <exp-dir>
    # Reads: <config> <egs-dir>/train.npz
    # Writes: <exp-dir>/final.pt

What follows for a stage: a deleted final.pt is trained for again (from the last checkpoint), then
extracted and scored; a changed train.toml starts the trainer, which refuses it; new features are
extracted from; a result moved back from .backup is new to the stages after it. A file that was
touched and not changed costs one look by the stage itself. Code and versions do not count, nor do
options, which say where and how a step runs: of a stage's command the script alone is kept. Nor
are folders, so a tree that was moved with its times kept stays finished.

Proofs of commit f8b4a44 are honoured, but for features, as they knew nothing of the audio. Those of
jobs did not tell read files from written ones;
those of stages had no command and wrote ``{exp}`` for ``<exp-dir>``.
"""

import contextlib
import functools
import os
import re
import shlex
import stat
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sv.config import build_record
from sv.energy.journal import MARKS_VARIABLE, RESUMED, UNCHANGED, write_mark
from sv.errors import SvError
from sv.files import read_object, write_json
from sv.system import mask_secrets

BEHIND = " > "  # between a table and an archive that it names
# A file's name -> its size and its time in ns; None: there is no such file.
Prints = dict[str, list[int] | None]
SHELL = ["bash", "-o", "pipefail", "-c"]  # begins a job's command that is a line of shell
PLACEHOLDER = re.compile(r"<([a-z0-9-]+)>")
EACH_WORD = re.compile(r"<([a-z0-9-]+)\.\.\.>")
# What the proofs of f8b4a44 call the arguments of steps.
OLD_ARGUMENTS = {
    "data": "data-dir", "egs": "egs-dir", "exp": "exp-dir", "scores": "scores-dir",
    "xvectors": "xvector-dir",
}  # fmt: skip


@dataclass(frozen=True)
class Proof:
    """What finished work was made from and has made.

    Attributes:
        command: Words of a job; the script of a stage; None: a stage of commit f8b4a44.
        read: Files it was made from, as they were when it began.
        written: Files it made; None: it has begun and has not ended.
    """

    command: list[str] | None
    read: Prints
    written: Prints | None


def read_proof(path: Path) -> Proof | None:
    """Read a proof, also of commit f8b4a44; None: there is none."""
    try:
        values = read_object(path)
        if "files" in values:  # a job of f8b4a44
            values = {"command": values["command"], "read": {}, "written": values["files"]}
        elif "command" not in values:
            both = {key: _rename(values[key]) for key in ("read", "written")}
            values = {"command": None, **both}
        return build_record(values, Proof, where=str(path))
    except (SvError, KeyError, AttributeError):
        return None


def write_proof(path: Path, proof: Proof) -> None:
    """Write a proof."""
    write_json(path, asdict(proof))


def is_finished(path: Path, command: Sequence[str], files: Prints) -> bool:
    """Return whether the proof is of this command and of these files as they are now.

    Args:
        path: The proof.
        command: A job's words, or a stage's script.
        files: Every file that the work reads and writes.
    """
    proof = read_proof(path)
    if proof is None or proof.written is None:
        return False
    if proof.command not in (None, list(command), mask_secrets(command)):
        return False
    known = {**proof.read, **proof.written}
    if not any(BEHIND in name for name in known):  # of before archives were in it
        files = {name: found for name, found in files.items() if BEHIND not in name}
    return bool(files) and known == files


def take_prints(paths: Mapping[str, str | Path]) -> Prints:
    """Look up size and time of files, by a name for each, and of the archives behind tables."""
    prints: Prints = {}
    for name, path in paths.items():
        prints[name] = found = _take_print(path)
        if found is not None and str(path).endswith(".scp"):
            archives = _list_archives(str(path), *found)
            prints |= {f"{name}{BEHIND}{ark}": _take_print(ark) for ark in archives}
    return prints


def _take_print(path: str | Path) -> list[int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a null character
        return None
    return [status.st_size, status.st_mtime_ns] if stat.S_ISREG(status.st_mode) else None


@functools.lru_cache(maxsize=256)
def _list_archives(scp: str, _size: int, _mtime_ns: int) -> list[str]:
    """List the archives that a table of this size and time names (``<key> <ark>:<offset>``)."""
    found = {}
    with open(scp, "rb") as file:
        for line in file:
            found[line.partition(b" ")[2].rpartition(b":")[0].strip()] = None
    return [os.fsdecode(ark) for ark in found if ark]


# Jobs


def take_job_prints(command: Sequence[str]) -> Prints:
    """Look up every file that a job's command line names."""
    prints = take_prints({word: word for word in list_words(command)})
    return {word: found for word, found in prints.items() if found is not None}


def list_words(command: Sequence[str]) -> list[str]:
    """List the words that may name a file: those of the command, and of its line of shell."""
    if command[:-1] != SHELL:
        return list(command)
    shell = shlex.shlex(command[-1], posix=True, punctuation_chars=True)
    shell.whitespace_split, shell.commenters = True, ""
    try:
        return list(shell)
    except ValueError:  # an open quote, which bash will refuse
        return []


def prove_job(
    path: Path,
    command: Sequence[str],
    before: Prints,
    began_ns: int,
    inputs: Container[str] = (),
) -> None:
    """Write the proof of a job that has just ended with status 0.

    Args:
        path: The proof.
        command: The job's words.
        before: `take_job_prints` before it began.
        began_ns: Time of a file that was written when it began: the file system's clock may differ
            from this machine's.
        inputs: Words that name no output.
    """
    written: Prints = {}
    for word, now in take_job_prints(command).items():
        was = before.get(word)
        if was is not None and word.split(BEHIND)[0] in inputs:
            continue  # if it has changed since, it is not what was read
        # A file that was there before and was written since counts as an output. One that changed
        # and yet is older (moved into place) is an input, and not the one that was read.
        if was is None or (now != was and now is not None and now[1] >= began_ns):
            written[word] = now
    # Nor is an archive an input that an output named before it was written.
    read = {w: was for w, was in before.items() if not {w, w.split(BEHIND)[0]} & written.keys()}
    write_proof(path, Proof(mask_secrets(command), read, written))


# Stages


def get_stage_proof(sidecar: Path) -> Path:
    """Return where the proof of a stage is kept: ``.05_train.done`` for ``05_train.json``."""
    return sidecar.with_name(f".{sidecar.stem}.done")


def is_stage_finished(sidecar: Path, command: Sequence[str]) -> bool:
    """Return whether a stage need not be run: proved, and its last attempt is complete.

    Args:
        sidecar: ``exp/<model>/energy/05_train.json``.
        command: A step with its options and arguments; a stage of another command is never
            finished.
    """
    from sv.energy.record import read_record  # noqa: PLC0415 - a job has no sidecar

    read, written = find_step_files(command)
    if not is_finished(get_stage_proof(sidecar), command[:1], take_prints({**read, **written})):
        return False
    try:
        return read_record(sidecar).status == "complete"
    except SvError:
        return False


def begin_stage(sidecar: Path, command: Sequence[str]) -> Proof | None:
    """Record what a stage is made from, and that it is not finished; return the earlier proof."""
    read, written = find_step_files(command)
    path = get_stage_proof(sidecar)
    earlier = read_proof(path)
    if written:
        write_proof(path, Proof(list(command[:1]), take_prints(read), None))
    return earlier


def end_stage(sidecar: Path, command: Sequence[str]) -> None:
    """Record what a stage has made; what it was made from stays as it was when it began."""
    _, written = find_step_files(command)
    path = get_stage_proof(sidecar)
    begun = read_proof(path)
    if written and begun is not None:
        write_proof(path, Proof(begun.command, begun.read, take_prints(written)))


@contextlib.contextmanager
def marking_changes(*folders: Path, kept: Path | None = None) -> Iterator[None]:
    """Report to the meter what became of a step that always runs, as stages 1, 2 and 4 do.

    An attempt that leaves every file as it was changes no figure of its stage; one that finds what
    an earlier attempt converted resumes that one. After an error in the block nothing is reported.

    Args:
        folders: Whose own files the step writes, with ``keep_if_same`` (`sv.files.replacing`).
        kept: Folder of what is not made again where it is there; what is made new is renamed into
            a folder below it.
    """
    before, there = _take_file_prints(folders), _list_folder_times(kept)
    yield
    marks = os.environ.get(MARKS_VARIABLE)
    if there:
        write_mark(marks, RESUMED, skipped=f"what is in {kept}")
    if before and before == _take_file_prints(folders) and there == _list_folder_times(kept):
        write_mark(marks, UNCHANGED, what="every file is as it was")


def _take_file_prints(folders: Sequence[Path]) -> Prints:
    paths = [str(path) for folder in folders for path in folder.glob("*") if path.is_file()]
    return {path: _take_print(path) for path in paths}


def _list_folder_times(top: Path | None) -> dict[str, int]:
    walked = os.walk(top) if top is not None else ()
    return {folder: os.stat(folder).st_mtime_ns for folder, _, files in walked if files}


def find_step_files(command: Sequence[str]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return the files that a step reads and those that it writes, by their names in its head.

    Args:
        command: The script, its options and its arguments. Of a command that is no step, or whose
            head names no files, both are empty.
    """
    head = _read_head(Path(command[0]))
    arguments = PLACEHOLDER.findall(head.get("Usage", ""))
    values, at = {}, 1
    while at + 1 < len(command) and command[at].startswith("--"):
        values[command[at][2:]] = command[at + 1]
        at += 2
    values |= dict(zip(arguments, command[at:], strict=False))
    values["list"] = Path(values.get("trials", "")).name
    return _fill_in(head.get("Reads", ""), values), _fill_in(head.get("Writes", ""), values)


def _read_head(script: Path) -> dict[str, str]:
    """Read the ``# Word: text`` lines of a script's head; lines of the same word are joined."""
    head: dict[str, str] = {}
    if script.suffix != ".sh" or not script.is_file():
        return head
    with open(script, encoding="utf-8") as file:
        for line in file:
            if not line.startswith("#"):
                break
            found = re.match(r"# (Usage|Reads|Writes): (.*)", line)
            if found:
                head[found[1]] = f"{head.get(found[1], '')} {found[2]}"
    return head


def _fill_in(patterns: str, values: Mapping[str, str]) -> dict[str, Path]:
    """Replace the placeholders of file names; one without a value leaves its file out."""
    names = []
    for pattern in patterns.split():
        each = EACH_WORD.search(pattern)
        words = values.get(each[1], "").split() if each else [""]
        names += [EACH_WORD.sub(word, pattern) for word in words]
    return {
        name: Path(PLACEHOLDER.sub(lambda found: values[found[1]], name))
        for name in names
        if all(placeholder in values for placeholder in PLACEHOLDER.findall(name))
    }


def _rename(prints: dict[str, Any] | None) -> Prints | None:
    """Rename the files in a stage's proof of commit f8b4a44 as steps name them now."""
    if prints is None:
        return None

    def rename(found: re.Match) -> str:
        return f"<{OLD_ARGUMENTS.get(found[1], found[1])}>"

    return {re.sub(r"\{(\w+)\}", rename, name): value for name, value in prints.items()}
