"""Files that a manifest names and that change under it: what was made from them is made again."""

import dataclasses
import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT, call
from corpora import run_here, write_audio

from sv.data.cuts import (
    Utterance,
    build_cut,
    build_recording,
    link_cuts,
    load_samples,
    write_data_set,
)
from sv.data.inputs import write_inputs
from sv.data.manifests import read_manifest, write_manifest
from sv.errors import SvError
from sv.kaldi.data_dir import read_table, write_data_dir

CONFIG = "tests/egs/tiny/conf/features.toml"


def read_inputs(data_dir, nj):
    write_inputs([data_dir], nj, keep=False)
    return [(data_dir / "fbank" / f"inputs.{job}").read_text() for job in range(1, nj + 1)]


def replace_file(path, *, seed=9, date_ns=None, seconds=1.0):
    """Write other samples, by default as many; ``date_ns``: of any date."""
    write_audio(path, seconds=seconds, seed=seed)
    if date_ns is not None:
        os.utime(path, ns=(date_ns, date_ns))


@pytest.fixture
def copies(tmp_path):
    """Four cuts: clean, mixed with a noise, reverberated, and one with an odd name."""
    paths = {name: write_audio(tmp_path / f'{name} "é\\.wav', seed=i)
             for i, name in enumerate(("clean", "noise", "room", "odd"))}  # fmt: skip
    recordings = {name: build_recording(path, f"s-{name}") for name, path in paths.items()}
    clean, odd = (
        build_cut(recordings[name], Utterance(f"s-{name}", "s", paths[name]))
        for name in ("clean", "odd")
    )
    mixed = clean.mix(build_cut(recordings["noise"], Utterance("n", "n", paths["noise"])), snr=10)
    wet = clean.recording.reverb_rir(recordings["room"], affix_id=False, rir_channels=[0])
    cuts = [clean, mixed, dataclasses.replace(clean, recording=wet), odd]
    cuts = [dataclasses.replace(cut, id=f"s-{i}") for i, cut in enumerate(cuts)]
    write_manifest(tmp_path / "manifests/set_cuts.jsonl.gz", cuts)
    write_data_dir(tmp_path / "set", {cut.id: "s" for cut in cuts})
    link_cuts(tmp_path, "set")
    return tmp_path / "set", paths


# Which of the four cuts is made from which file.
MADE_FROM = {"clean": {0, 1, 2}, "noise": {1}, "room": {2}, "odd": {3}}


@pytest.mark.parametrize("name", MADE_FROM)
def test_the_jobs_whose_lines_name_a_file_see_that_it_changed(copies, name):
    data_dir, paths = copies
    seen = read_inputs(data_dir, 4)
    times = [path.stat().st_mtime_ns for path in (data_dir / "fbank").iterdir()]
    assert len(set(seen)) == 4 and read_inputs(data_dir, 4) == seen
    assert [path.stat().st_mtime_ns for path in (data_dir / "fbank").iterdir()] == times
    for change in (
        replace_file,
        lambda path: replace_file(path, date_ns=10**18),  # older than before
        lambda path: replace_file(path, date_ns=10**18, seconds=1.1),
        Path.unlink,
    ):
        change(paths[name])
        before, seen = seen, read_inputs(data_dir, 4)
        assert {i for i in range(4) if seen[i] != before[i]} == MADE_FROM[name]


def make_fbank(data_dir, *options):
    return call(["steps/make_fbank.sh", *options, "--config", CONFIG, data_dir], timeout=60)


def test_only_the_job_of_a_replaced_file_runs_again(tmp_path):
    """A file is repaired in place between two runs, another one is silent in both."""
    paths = [write_audio(tmp_path / f"wav/{i}.wav", seed=i) for i in range(4)]
    soundfile.write(paths[3], np.zeros((16000, 2)), 16000)
    utterances = [Utterance(f"s-{path.stem}", "s", path) for path in paths]
    write_data_set(tmp_path, "set", utterances)
    arks = [tmp_path / f"set/fbank/fbank.{job}.ark" for job in (1, 2)]
    done = make_fbank(tmp_path / "set")
    assert done.returncode == 0, done.stderr
    assert "1 of 4 utterances are silent:\n" in done.stderr and f"s-3 ({paths[3]})" in done.stderr
    first, manifest = [ark.read_bytes() for ark in arks], tmp_path / "manifests/set_cuts.jsonl.gz"
    packed = manifest.read_bytes()
    replace_file(paths[0], date_ns=10**18)  # of job 1: lines 1 and 3
    write_data_set(tmp_path, "set", utterances)
    assert manifest.read_bytes() == packed
    done = make_fbank(tmp_path / "set")
    assert done.returncode == 0 and "1 of 2 jobs finished before" in done.stderr
    assert "silent" in done.stderr  # also of a job that was finished before
    assert [ark.read_bytes() != old for ark, old in zip(arks, first, strict=True)] == [True, False]
    done = make_fbank(tmp_path / "set", "--nj", 3)  # another machine
    assert done.returncode == 0 and "2 of 2 jobs finished before" in done.stderr
    done = make_fbank(tmp_path / "set", "--nj", 3, "--cmd", "utils/run.py --resume false")
    assert done.returncode == 0 and "4 utterances, 3 jobs" in done.stderr
    assert " MB there of other settings" in done.stderr  # these stay until the new ones are there
    done = make_fbank(tmp_path / "set", "--nj", 2, "--cmd", "utils/run.py --resume false")
    found = sorted(path.name for path in (tmp_path / "set/fbank").glob("*.[0-9]*"))
    assert {name.split(".")[1] for name in found} == {"1", "2"} and len(found) == 10
    paths[0].write_bytes(paths[0].read_bytes()[:20000])
    done = make_fbank(tmp_path / "set")
    assert "1 of 2 jobs are done again" in done.stderr
    assert done.returncode == 1 and "no features for 1 of 4 utterances" in done.stderr
    assert f"{paths[0]}: cut off after 9978 of 16000 samples" in done.stderr


def test_half_made_features_of_another_front_end_are_not_used(tmp_path):
    """feats.scp fits them: it is gone until all jobs have ended well."""
    paths = [write_audio(tmp_path / f"wav/{i}.wav", seed=i) for i in range(4)]
    write_data_set(tmp_path, "set", [Utterance(f"s-{path.stem}", "s", path) for path in paths])
    assert make_fbank(tmp_path / "set").returncode == 0
    scp = (tmp_path / "set/feats.scp").read_bytes()
    config = tmp_path / "features.toml"
    config.write_text((ROOT / CONFIG).read_text().replace("low_freq_hz = 20", "low_freq_hz = 300"))
    cmd = tmp_path / "cmd"  # the first job, then the end
    cmd.write_text('#!/bin/sh\nshift; utils/run.py JOB=1:1 "$@"; exit 1\n')
    cmd.chmod(0o755)
    words = ["steps/make_fbank.sh", "--config", config]
    done = call([*words, "--cmd", cmd, tmp_path / "set"], timeout=60)
    assert done.returncode == 1 and not (tmp_path / "set/feats.scp").exists()
    assert call([*words, tmp_path / "set"], timeout=60).returncode == 0
    assert (tmp_path / "set/feats.scp").read_bytes() == scp


@pytest.mark.parametrize("seconds", [0.9999, 1.0001, 0.6, 1.5])
def test_a_file_of_another_length_than_its_manifest_says_is_named(copies, seconds):
    data_dir, paths = copies
    cuts = list(read_manifest(data_dir / "cuts.jsonl.gz"))
    for name in ("clean", "room"):
        replace_file(paths[name], seconds=seconds)
        with pytest.raises(SvError, match="had 16000 samples in stage 1.*run stages 1 and 2"):
            load_samples(cuts[2])
        replace_file(paths[name])
    assert len(load_samples(cuts[2])) == 16000
    replace_file(paths["noise"], seconds=min(seconds, 0.9999))
    with pytest.raises(SvError, match="noise .* had 16000 samples"):
        load_samples(cuts[1])


def test_features_that_are_not_finite_are_refused(tmp_path):
    path = tmp_path / "loud.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 1e30, 8000), 16000, subtype="FLOAT")
    write_data_set(tmp_path, "set", [Utterance("s-loud", "s", path)])
    outputs = [tmp_path / name for name in ("f.ark", "f.scp", "frames")]
    done = run_here("sv.bin.make_fbank", "--config", CONFIG, tmp_path / "set", *outputs,
                    check=False)  # fmt: skip
    assert done.returncode == 1 and str(path) in done.stderr


def test_silent_noise_is_left_out_by_name(tmp_path):
    noises = [write_audio(tmp_path / f"corpora/noise/{name}.wav") for name in "abc"]
    late = np.zeros(40_000)
    late[-1] = 0.5
    soundfile.write(noises[0], np.zeros(40_000), 16000)
    soundfile.write(noises[1], late, 16000)
    write_data_set(tmp_path, "train", [Utterance("s-x", "s", write_audio(tmp_path / "x.wav"))])
    (tmp_path / "corpora.toml").write_text(CORPORA.replace('reverb = ["rirs', 'noise = ["noise'))
    words = (
        "local.augment_data", "--config", tmp_path / "corpora.toml", "--augment-config",
        ROOT / "tests/egs/tiny/conf/augment.toml", "--corpora", tmp_path / "corpora", tmp_path,
    )  # fmt: skip
    done = run_here(*words)
    assert f"noise: left out 1 silent files: {noises[0]}\n" in done.stderr
    manifest = tmp_path / "manifests/noise_recordings.jsonl.gz"
    assert [recording.id for recording in read_manifest(manifest)] == ["noise/b.wav", "noise/c.wav"]
    for path in noises:
        soundfile.write(path, np.zeros(40_000), 16000)
    done = run_here(*words, check=False)
    assert done.returncode == 1 and done.stderr.endswith("noise: every file is silent\n")


CORPORA = """train = "train"
[trials]
[speech]
[augment]
reverb = ["rirs"]
"""


@pytest.mark.parametrize("response", ["zeros", "an empty first channel", "NaN"])
def test_an_impulse_response_that_would_silence_is_refused(tmp_path, response):
    samples = np.zeros((8000, 2))
    samples[:, 1] = np.hanning(8000)
    samples[:, 0] = np.nan if response == "NaN" else 0
    bad = tmp_path / "corpora/rirs/bad.wav"
    write_audio(bad)
    soundfile.write(bad, samples[:, : 1 if response == "zeros" else 2], 16000, subtype="FLOAT")
    write_data_set(tmp_path, "train", [Utterance("s-x", "s", write_audio(tmp_path / "x.wav"))])
    (tmp_path / "corpora.toml").write_text(CORPORA)
    done = run_here(
        "local.augment_data", "--config", tmp_path / "corpora.toml", "--augment-config",
        ROOT / "tests/egs/tiny/conf/augment.toml", "--corpora", tmp_path / "corpora", tmp_path,
        check=False,
    )  # fmt: skip
    assert (
        done.returncode == 1 and f"1 of 1 audio files cannot be used; first: {bad}: " in done.stderr
    )


def test_a_manifest_can_be_used_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_audio(Path("wav/x.wav"))
    write_data_set(Path("data"), "set", [Utterance("s-x", "s", Path("wav/x.wav"))])
    with gzip.open("data/set/cuts.jsonl.gz", "rt") as file:
        [line] = map(json.loads, file)
    assert line["recording"]["sources"][0]["source"] == str(tmp_path / "wav/x.wav")
    assert read_table(Path("data/set/wav.scp")) == {"s-x": str(tmp_path / "wav/x.wav")}
