"""The built-in corpus: same bytes, the promised layout, voices that differ, and refusals."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT, environment

from local.make_mini import MiniConfig, make_corpus
from sv.config import read_config
from sv.errors import SvError, UsageError

pytest.importorskip("espeakng_loader")  # what the corpus needs; the program says so too

TINY = """
seed = 7
train_speakers = 3
train_utterances_per_speaker = 4
test_speakers = 4
test_utterances_per_speaker = 4
sessions_per_speaker = 2
utterance_min_s = 2.0
utterance_max_s = 3.0
noise_files = 2
music_files = 2
babble_files = 2
noise_min_s = 3.0
noise_max_s = 5.0
rooms = 2
rirs_per_room = 2
"""


def hash_files(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("conf") / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def corpora(tmp_path_factory, config):
    """The corpus, made once by the real program, one job at a time."""
    folder = tmp_path_factory.mktemp("corpora")
    make(config, folder, nj=1)
    return folder


def make(config, folder, *, nj):
    # Not the fixture run_cli: that lives for one test, the corpus for the module.
    words = [sys.executable, "-m", "local.make_mini", "--config", config, "--nj", nj, folder]
    words = [str(word) for word in words]
    subprocess.run(words, cwd=ROOT, env=environment(), check=True, timeout=60)


def test_same_bytes_whatever_was_there_and_the_number_of_jobs(corpora, config, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text(
        TINY.replace("seed = 7", "seed = 8")
        .replace("speakers = 3", "speakers = 1")
        .replace("files = 2", "files = 1")
        .replace("per_speaker = 4", "per_speaker = 2")
    )
    make(other, tmp_path / "c", nj=2)
    wanted, first = hash_files(corpora), hash_files(tmp_path / "c")
    sounds = [name for name in first.keys() & wanted.keys() if name.endswith(".flac")]
    assert len(sounds) > 8
    assert all(first[name] != wanted[name] for name in sounds)  # another seed: nothing is alike
    make(config, tmp_path / "c", nj=3)  # another config: made anew, in its place
    assert hash_files(tmp_path / "c") == wanted


def test_layout_and_counts(corpora):
    assert sorted(path.name for path in corpora.iterdir()) == ["mini", "musan", "rirs"]
    names = [path.relative_to(corpora).as_posix() for path in corpora.rglob("*.flac")]
    assert "mini/wav/train/id10001/s01/001.flac" in names
    assert "mini/wav/test/id10007/s02/002.flac" in names
    assert sum(name.startswith("mini/wav/train/") for name in names) == 3 * 4
    assert sum(name.startswith("mini/wav/test/") for name in names) == 4 * 4
    for part, count in (("noise", 2), ("music", 2), ("speech", 2)):
        assert len(list((corpora / "musan" / part / "generated").glob("*.flac"))) == count
    assert (corpora / "rirs/simulated/room002/room002-002.flac").is_file()
    assert len(list((corpora / "rirs").rglob("*.flac"))) == 4
    assert "CC0" in (corpora / "mini/README").read_text()
    made = json.loads((corpora / "mini/corpus.json").read_text())
    assert made["config"]["seed"] == 7
    assert made["flac_files"] == 28


def test_speakers_and_trials_agree_with_the_files(corpora):
    mini = corpora / "mini"
    header, *rows = (mini / "speakers.tsv").read_text().splitlines()
    assert header.split("\t") == ["id", "gender", "accent", "split"]
    for row in rows:
        speaker, gender, _, split = row.split("\t")
        assert gender in ("m", "f")
        assert (mini / "wav" / split / speaker).is_dir()
    assert len(rows) == 7
    trials = [line.split() for line in (mini / "trials.txt").read_text().splitlines()]
    assert len(trials) == 16 * 15 // 2
    assert len({frozenset(pair) for _, *pair in trials}) == len(trials)
    for label, a, b in trials:
        assert label == str(int(a.split("/")[0] == b.split("/")[0]))
        assert (mini / "wav/test" / a).is_file()
        assert (mini / "wav/test" / b).is_file()


def test_sound_is_16_khz_mono_of_the_wanted_length_not_clipped_not_silent(corpora):
    for path in corpora.rglob("*.flac"):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16"), path
        samples, _ = soundfile.read(path)
        assert np.abs(samples).max() < 0.96, path
        shortest_s, longest_s = {"mini": (2.0, 3.0), "musan": (3.0, 5.0), "rirs": (0.2, 1.1)}[
            path.relative_to(corpora).parts[0]
        ]
        assert shortest_s - 0.001 <= info.duration <= longest_s, path
        if "rirs" not in path.parts:
            rms_db = 20 * np.log10(np.sqrt(np.mean(samples**2)))
            assert -40 < rms_db < -15, path


def test_an_impulse_response_dies_away(corpora):
    samples, _ = soundfile.read(corpora / "rirs/simulated/room001/room001-001.flac")
    peak = int(np.abs(samples).argmax())
    assert peak < 0.1 * 16000  # the direct sound, or an early reflection
    assert (samples[-800:] ** 2).mean() < 0.01 * (samples[peak : peak + 800] ** 2).mean()


def compute_spectrum_db(path: Path) -> np.ndarray:
    """Average the log spectrum in 40 bands of 200 Hz, without level: (40,) dB."""
    samples, _ = soundfile.read(path)
    frames = np.lib.stride_tricks.sliding_window_view(samples, 400)[::200] * np.hanning(400)
    power = np.abs(np.fft.rfft(frames)) ** 2  # (frames, 201), 40 Hz apart
    power = power[power.sum(1) > 0.01 * power.sum(1).max()]
    bands_db = 10 * np.log10(power[:, :200].reshape(len(power), 40, 5).mean(2) + 1e-9)
    return bands_db.mean(0) - bands_db.mean()


def test_speakers_differ_more_than_utterances_of_one(corpora):
    files = sorted((corpora / "mini/wav").rglob("*.flac"))
    spectra = [compute_spectrum_db(path) for path in files]
    within, between = [], []
    for i, a in enumerate(files):
        for j, b in enumerate(files[:i]):
            apart = np.sqrt(np.mean((spectra[i] - spectra[j]) ** 2))
            (within if a.parts[-3] == b.parts[-3] else between).append(apart)
    assert np.mean(between) > 1.3 * np.mean(within)


def test_a_second_run_changes_nothing(corpora, config, run_cli):
    before = {path: path.stat().st_mtime_ns for path in corpora.rglob("*")}
    done = run_cli("local.make_mini", "--config", config, corpora)
    assert done.stderr == f"local.make_mini: {corpora}/mini is there already\n"
    assert {path: path.stat().st_mtime_ns for path in corpora.rglob("*")} == before


def test_a_folder_of_somebody_else_is_left_alone(config, tmp_path, run_cli):
    for name in ("mini", "musan", "rirs"):
        folder = tmp_path / f"with_{name}"
        (folder / name).mkdir(parents=True)
        (folder / name / "mine.txt").write_text("years of work\n")
        with pytest.raises(SvError, match=f"{name} exists and is not a mini corpus"):
            make_corpus(read_config(config, MiniConfig), folder, nj=1)
        assert [path.name for path in folder.rglob("*")] == [name, "mine.txt"]
    done = run_cli("local.make_mini", "--config", config, tmp_path / "with_musan", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"local.make_mini: {tmp_path}/with_musan/musan exists")
    assert done.stderr.count("\n") == 1


def test_a_file_added_to_the_corpus_is_not_deleted(config, tmp_path):
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini" / "mine.txt").write_text("years of work\n")
    made = {"made_by": "local/make_mini.py", "files": 0}
    (tmp_path / "mini" / "corpus.json").write_text(json.dumps(made))
    with pytest.raises(SvError, match="mini holds 1 files, made were 0"):
        make_corpus(read_config(config, MiniConfig), tmp_path, nj=1)
    assert (tmp_path / "mini" / "mine.txt").is_file()


def test_a_wrong_key_is_one_line_and_status_2(tmp_path, run_cli):
    path = tmp_path / "bad.toml"
    path.write_text(TINY.replace("rooms = 2", "roms = 2"))
    done = run_cli("local.make_mini", "--config", path, tmp_path / "c", check=False)
    assert done.returncode == 2
    assert done.stderr == f"local.make_mini: {path}: unknown key 'roms' (did you mean 'rooms'?)\n"
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rooms = 2", "rooms = 0", "rooms must be above 0, not 0"),
        ("utterance_min_s = 2.0", "utterance_min_s = 4.0", "utterance_min_s is above"),
    ],
)
def test_a_value_that_makes_no_corpus_is_refused(old, new, message, tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(TINY.replace(old, new))
    with pytest.raises(UsageError, match=message):
        read_config(path, MiniConfig)


def test_missing_espeak_names_its_package(config, tmp_path, run_cli):
    (tmp_path / "espeakng_loader.py").write_text("raise ImportError('as if not installed')\n")
    path = f"{tmp_path}:{Path(__file__).resolve().parent.parent}"
    done = run_cli(
        "local.make_mini", "--config", config, tmp_path, check=False, env={"PYTHONPATH": path}
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "pip install espeakng-loader" in done.stderr
