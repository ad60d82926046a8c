"""Features and embeddings are the same whatever the number of jobs, and on how many GPUs."""

import json
import re
import shutil

import kaldiio
import numpy as np
import pytest
from conftest import ROOT


def read_all(path):
    """Read a table of matrices or vectors."""
    found = kaldiio.load_scp(str(path))
    return {key: found[key] for key in found}


def test_features_do_not_depend_on_the_number_of_jobs(run_cli, tiny, tmp_path):
    made = tiny.data / "mini_test"  # by two jobs
    data = tmp_path / "mini_test"
    data.mkdir()
    for name in ("wav.scp", "utt2spk", "spk2utt", "cuts.jsonl.gz", "utt2dur"):
        shutil.copy(made / name, data)
    config = ROOT / "tests/egs/tiny/conf/features.toml"
    done = run_cli("steps/make_fbank.sh", "--nj", 5, "--config", config, data)
    said = re.search(r"mini_test: ([0-9.]+) MB\n.* \1 MB to write, .* free", done.stderr)
    size = sum(path.stat().st_size for path in (data / "fbank").glob("fbank.*.ark"))
    assert float(said[1]) * 1e6 == pytest.approx(size, rel=0.01, abs=5e4)
    assert len(list((data / "fbank").glob("fbank.*.ark"))) == 5
    assert (data / "utt2num_frames").read_bytes() == (made / "utt2num_frames").read_bytes()
    theirs, ours = read_all(made / "feats.scp"), read_all(data / "feats.scp")
    assert list(ours) == list(theirs) == sorted(theirs)
    assert all(np.array_equal(ours[key], theirs[key]) for key in theirs)


def test_embeddings_do_not_depend_on_the_number_of_jobs(run_cli, tiny, tmp_path):
    model = tiny.exp / tiny.model
    run_cli("steps/extract_xvectors.sh", "--nj", 5, model, tiny.data / "mini_test", tmp_path / "x")
    assert len(list((tmp_path / "x").glob("xvector.*.ark"))) == 5
    theirs = read_all(model / "xvectors_mini_test" / "xvector.scp")
    ours = read_all(tmp_path / "x" / "xvector.scp")
    assert list(ours) == list(theirs) == sorted(theirs)
    for key, vector in theirs.items():  # other batches: the last bits may differ
        assert np.allclose(ours[key], vector, rtol=1e-5, atol=1e-6 * np.abs(vector).max())


def test_jobs_on_gpus_of_two_models_are_one_extraction(run_cli, tmp_path):
    (tmp_path / "utt2dur").write_text("a 1.5\nb 2\n")
    infos = []
    for job, (device, precision) in enumerate(
        [("V100", "fp32"), ("A100", "fp32"), ("V100", "bf16")]
    ):
        infos.append(tmp_path / f"info.{job}.json")
        info = {"precision": precision, "device": device, "utterances": 1, "frames": 100 + job}
        infos[-1].write_text(json.dumps(info))
    words = ("sv.bin.recipe", "merge-infos", tmp_path, tmp_path / "info.json")
    run_cli(*words, *infos[:2])
    merged = json.loads((tmp_path / "info.json").read_text())
    assert (merged["device"], merged["frames"], merged["audio_s"]) == ("A100, V100", 201, 3.5)
    done = run_cli(*words, *infos, check=False)
    assert done.returncode == 1 and "info.2.json was made differently" in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--ngpu", 3, "--nj", 8], ["--gpu", "1", "JOB=1:3", "--ngpu", "1", "--nj", "3"]),
        (["--nj", 8], ["--gpu", "0", "JOB=1:8", "--ngpu", "0", "--nj", "8"]),
        (["--nj", 80], ["--gpu", "0", "JOB=1:16", "--ngpu", "0", "--nj", "16"]),
    ],
)
def test_each_gpu_has_a_job(run_cli, tiny, tmp_path, options, words):
    cmd = tmp_path / "cmd"
    cmd.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" >{tmp_path}/words\nexit 7\n")
    cmd.chmod(0o755)
    argv = ["steps/extract_xvectors.sh", "--cmd", cmd, *options]
    argv += [tiny.exp / tiny.model, tiny.data / "mini_test", tmp_path / "x"]
    done = run_cli(*argv, check=False)
    assert done.returncode == 7
    found = (tmp_path / "words").read_text().splitlines()
    asked = [found[found.index(word) + 1] for word in ("--gpu", "--ngpu", "--nj")]
    array = next(word for word in found if word.startswith("JOB="))
    assert ["--gpu", asked[0], array, "--ngpu", asked[1], "--nj", asked[2]] == words
