"""Make the built-in corpus: espeak-ng speaks it, numpy makes its noise, music and rooms.

Usage: python3 -m local.make_mini [--config egs/mini/conf/mini.toml] [--nj 2] <corpora-dir>
 e.g.: python3 -m local.make_mini --nj 2 egs/mini/corpus

The folders look like a speaker corpus (``mini``, laid out as VoxCeleb), MUSAN (``musan``) and
RIRS_NOISES (``rirs``); no later stage depends on their being computed. One config gives the same
bytes on every run, whatever ``--nj`` (`local.mini_voices` says how).
"""

import hashlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from local import mini_noise, mini_voices
from sv.bin.cli import Parser, positive_int, run
from sv.config import read_config
from sv.energy.journal import MARKS_VARIABLE, UNCHANGED, write_mark
from sv.errors import SvError
from sv.files import read_json, write_json, write_text

FORMAT = 1  # raise it when the same config gives other bytes: old corpora are then made anew
FOLDERS = ("rirs", "musan", "mini")  # in the order in which they are put in place
PROGRESS_S = 5.0

README = """Computed speech, for trying the recipe without a download.

Made by local/make_mini.py (seed {seed}) with espeak-ng {espeak}. No person was recorded: a voice
is a set of drawn numbers in an espeak-ng voice file, the texts come from a small grammar.
wav/<train|test>/<speaker>/<session>/<number>.flac: 16 kHz, mono, 16 bit. speakers.tsv: the voices.
trials.txt: 1 (same speaker) or 0 and two files under wav/test, every pair. corpus.json: config.

License: the audio and the lists are free for any use, with no conditions, as under CC0 1.0.
(espeak-ng is under the GPL 3, which does not extend to the sound that it makes.)
Error rates on this corpus show that the recipe works; they say nothing about real speech.
"""


@dataclass(frozen=True)
class MiniConfig:
    """Sizes of the corpus; see egs/mini/conf/mini.toml. Counts may not be 0."""

    seed: int
    train_speakers: int
    train_utterances_per_speaker: int
    test_speakers: int
    test_utterances_per_speaker: int
    sessions_per_speaker: int
    utterance_min_s: float
    utterance_max_s: float
    noise_files: int
    music_files: int
    babble_files: int
    noise_min_s: float
    noise_max_s: float
    rooms: int
    rirs_per_room: int

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 0 or (value == 0 and name != "seed"):
                raise ValueError(f"{name} must be above 0, not {value}")
        if self.train_speakers + self.test_speakers > 89998:
            raise ValueError("ids have 7 letters: at most 89998 speakers")
        for kind in ("utterance", "noise"):
            if getattr(self, f"{kind}_min_s") > getattr(self, f"{kind}_max_s"):
                raise ValueError(f"{kind}_min_s is above {kind}_max_s")


@dataclass(frozen=True)
class Job:
    """The work of one process: one speaker, or one file of noise, music, babble or one room."""

    kind: str  # speaker | babble | noise | music | room
    name: str
    folder: str  # under the root of the build
    utterances: int = 1


def list_jobs(config: MiniConfig) -> list[Job]:
    """List all jobs; speakers of training first, then of test, with ids like VoxCeleb's."""
    jobs = []
    for k in range(config.train_speakers + config.test_speakers):
        split = "train" if k < config.train_speakers else "test"
        count = getattr(config, f"{split}_utterances_per_speaker")
        jobs.append(Job("speaker", f"id{10001 + k}", f"mini/wav/{split}", count))
    for kind, part in (("babble", "speech"), ("noise", "noise"), ("music", "music")):
        for k in range(1, getattr(config, f"{kind}_files") + 1):
            jobs.append(Job(kind, f"{part}-generated-{k:04d}", f"musan/{part}/generated"))
    for k in range(1, config.rooms + 1):
        name = f"room{k:03d}"
        jobs.append(Job("room", name, f"rirs/simulated/{name}", config.rirs_per_room))
    return jobs


def do_job(job: Job, config: MiniConfig, root: Path, scratch: Path) -> None:
    """Make the files of one job below ``root``; runs in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C, once
    folder = root / job.folder
    folder.mkdir(parents=True, exist_ok=True)
    rng = mini_voices.seeded(config.seed, job.kind, job.name)
    if job.kind == "speaker":
        make_speaker(job, config, folder / job.name, scratch)
    elif job.kind == "room":
        size_m, t60_s = mini_noise.draw_room(rng)
        for k in range(1, job.utterances + 1):
            response = mini_noise.make_rir(rng, size_m, t60_s)
            mini_noise.write_flac(folder / f"{job.name}-{k:03d}.flac", response)
    else:
        duration_s = rng.uniform(config.noise_min_s, config.noise_max_s)
        if job.kind == "babble":
            voice = mini_voices.draw_voice(config.seed, job.name)
            with mini_voices.open_synthesizer(scratch) as synthesizer:
                text = mini_voices.format_voice(voice)
                synthesizer.set_voice(voice.accent, "babble", text, seed=config.seed)
                samples = mini_noise.set_level(synthesizer.speak_for(rng, duration_s), -24.0)
        else:
            make = mini_noise.make_noise if job.kind == "noise" else mini_noise.make_music
            samples = make(rng, duration_s)
        mini_noise.write_flac(folder / f"{job.name}.flac", samples)


def make_speaker(job: Job, config: MiniConfig, folder: Path, scratch: Path) -> None:
    """Speak all utterances of one speaker: sessions differ in mood, channel, hiss and level."""
    voice = mini_voices.draw_voice(config.seed, job.name)
    sessions = min(config.sessions_per_speaker, job.utterances)
    with mini_voices.open_synthesizer(scratch) as synthesizer:
        for session, part in enumerate(np.array_split(range(job.utterances), sessions), start=1):
            name = f"s{session:02d}"
            (folder / name).mkdir(parents=True)
            rng = mini_voices.seeded(config.seed, "session", job.name, name)
            text = mini_voices.format_voice(mini_voices.vary_voice(voice, rng))
            synthesizer.set_voice(voice.accent, name, text, seed=int(rng.integers(1, 2**31)))
            taps = mini_noise.draw_channel(rng)
            snr_db, mean_db = rng.uniform(18.0, 40.0), rng.uniform(-30.0, -20.0)
            for number in range(1, len(part) + 1):
                duration_s = rng.uniform(config.utterance_min_s, config.utterance_max_s)
                samples = synthesizer.speak_for(rng, duration_s)
                rms_db = mean_db + rng.uniform(-1.5, 1.5)
                samples = mini_noise.apply_channel(samples, taps, rng, snr_db=snr_db, rms_db=rms_db)
                mini_noise.write_flac(folder / name / f"{number:03d}.flac", samples)


def run_jobs(jobs: list[Job], config: MiniConfig, root: Path, scratch: Path, *, nj: int) -> None:
    """Run every job in a fresh process, ``nj`` at once, with a line every few seconds.

    Raises:
        SvError: a process failed; its own message is above.
    """
    # A fork server is clean (one thread, espeak-ng not started) and has the imports done.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["local.mini_noise", "local.mini_voices", "sv.config"])
    waiting, running = list(reversed(jobs)), {}
    last = time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < nj:
                job = waiting.pop()
                process = context.Process(target=do_job, args=(job, config, root, scratch))
                process.name = job.name
                process.start()
                running[process.sentinel] = process
            for sentinel in multiprocessing.connection.wait(list(running), timeout=PROGRESS_S):
                process = running.pop(sentinel)
                process.join()
                if process.exitcode != 0:
                    raise SvError(f"{process.name} failed (status {process.exitcode}), see above")
            if time.monotonic() - last > PROGRESS_S:
                last = time.monotonic()
                done = len(jobs) - len(waiting) - len(running)
                print(f"local.make_mini: {done} of {len(jobs)} jobs done", file=sys.stderr)
    finally:
        for process in running.values():
            process.terminate()
            process.join()


def write_lists(jobs: list[Job], config: MiniConfig, root: Path, espeak: str) -> None:
    """Write speakers.tsv, trials.txt and README of the corpus in ``root``/mini."""
    rows = ["id\tgender\taccent\tsplit"]
    for job in jobs:
        if job.kind == "speaker":
            voice = mini_voices.draw_voice(config.seed, job.name)
            rows.append(f"{job.name}\t{voice.gender}\t{voice.accent}\t{Path(job.folder).name}")
    write_text(root / "mini/speakers.tsv", "\n".join(rows) + "\n")
    test = root / "mini/wav/test"
    names = sorted(path.relative_to(test).as_posix() for path in test.glob("*/*/*.flac"))
    pairs = itertools.combinations(names, 2)  # a name begins with the 7 letters of its speaker
    lines = [f"{int(a[:7] == b[:7])} {a} {b}\n" for a, b in pairs]
    write_text(root / "mini/trials.txt", "".join(lines))
    write_text(root / "mini/README", README.format(seed=config.seed, espeak=espeak))


def describe(folder: Path, config: MiniConfig, espeak: str) -> dict[str, Any]:
    """Describe a finished folder: the content of its corpus.json."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder).as_posix()}\n".encode() + path.read_bytes())
    return {
        "made_by": "local/make_mini.py",
        "format": FORMAT,
        "config": asdict(config),
        "versions": {
            "espeak-ng": espeak,
            "libsndfile": soundfile.__libsndfile_version__,
            "numpy": np.__version__,
            "soxr": soxr.__version__,
        },
        "files": len(files),
        "flac_files": sum(path.suffix == ".flac" for path in files),
        "sha256": digest.hexdigest(),
    }


def read_made(folder: Path) -> dict[str, Any] | None:
    """Read the corpus.json of an existing folder; None where there is no folder.

    Raises:
        SvError: the folder was not made by this program, or files were added or removed since.
    """
    if not os.path.lexists(folder):
        return None
    made = read_json(folder / "corpus.json") if (folder / "corpus.json").is_file() else {}
    if not isinstance(made, dict) or made.get("made_by") != "local/make_mini.py":
        raise SvError(f"{folder} exists and is not a mini corpus: choose another folder")
    count = sum(path.is_file() for path in folder.rglob("*")) - 1  # without corpus.json
    if count != made.get("files"):
        raise SvError(f"{folder} holds {count} files, made were {made.get('files')}: move it away")
    return made


def install(build: Path, corpora: Path) -> None:
    """Put the built folders in place of older ones; ``mini`` comes last, as the mark of a whole."""
    present = [name for name in FOLDERS if read_made(corpora / name) is not None]
    for name in reversed(FOLDERS):
        if name in present:
            (corpora / name).rename(build / f"old-{name}")
    for name in FOLDERS:
        (build / name).rename(corpora / name)


def make_corpus(config: MiniConfig, corpora: Path, *, nj: int) -> bool:
    """Make the corpus in ``corpora`` unless it is there already; return whether it was made.

    Raises:
        SvError: espeak-ng is missing, a job failed, or a folder in the way is not ours.
    """
    found = [read_made(corpora / name) for name in FOLDERS]
    want = {"format": FORMAT, "config": asdict(config)}
    if all(made and {key: made.get(key) for key in want} == want for made in found):
        return False
    with mini_voices.open_synthesizer() as synthesizer:
        espeak = synthesizer.version
    try:
        corpora.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=".mini.", dir=corpora)
    except OSError as error:
        raise SvError(
            f"cannot make the corpus in {corpora}: {error.strerror}; make it where you may write "
            "(local/make_mini.py DIR) and give --corpora DIR"
        ) from error
    jobs = list_jobs(config)
    with (
        folder as build_folder,
        tempfile.TemporaryDirectory(prefix="mini.") as scratch,
    ):
        build = Path(build_folder)
        run_jobs(jobs, config, build, Path(scratch), nj=nj)
        write_lists(jobs, config, build, espeak)
        for name in FOLDERS:
            write_json(build / name / "corpus.json", describe(build / name, config, espeak))
        install(build, corpora)
    return True


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and make the corpus."""
    parser = Parser(__doc__)
    parser.add_argument("--config", type=Path, default=Path("egs/mini/conf/mini.toml"))
    parser.add_argument("--nj", type=positive_int, default=2)
    parser.add_argument("corpora", metavar="corpora-dir", type=Path)
    args = parser.parse_args(argv)
    config = read_config(args.config, MiniConfig)
    # A plain SIGTERM would leave the unfinished folder behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    start = time.monotonic()
    made = make_corpus(config, args.corpora, nj=args.nj)
    done = f"made in {time.monotonic() - start:.0f} s" if made else "is there already"
    print(f"local.make_mini: {args.corpora}/mini {done}", file=sys.stderr)
    if not made:
        write_mark(os.environ.get(MARKS_VARIABLE), UNCHANGED, what="the corpus is there already")
    return 0


if __name__ == "__main__":
    sys.exit(run("local.make_mini", main))
