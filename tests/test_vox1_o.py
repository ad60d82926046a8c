"""The official Vox1-O list through the real recipe: no trial is lost from stage 1 to stage 7."""

import json
import os
import shutil

import pytest
from conftest import ROOT, SHARED_DATA, call
from corpora import write_audio, write_config

from local.voxceleb import read_trial_list

LISTS = SHARED_DATA / "voxceleb_lists"
CONFIG = """
train = "mini_train"
[trials]
vox1_o = "voxceleb1"
[speech.mini]
path = "mini"
[speech.voxceleb1]
path = "voxceleb1"
[augment]
noise = ["musan/noise"]
"""


@pytest.mark.skipif(not LISTS.is_dir(), reason=f"no {LISTS}")
def test_vox1_o_from_the_list_to_its_metrics(tiny, tmp_path):
    """The names are those of its 4,708 utterances, the audio is anything, the model is tiny."""
    egs = tmp_path / "egs"
    shutil.copytree(ROOT / "tests/egs/tiny/conf", egs / "conf")
    write_config(egs / "conf/corpora.toml", CONFIG)
    corpora = tmp_path / "corpora"
    corpora.mkdir()
    for name in ("mini", "musan"):
        (corpora / name).symlink_to(tiny.corpora / name)
    sources = [write_audio(tmp_path / f"{n}.flac", seconds=0.3, seed=n) for n in range(40)]
    names = {key for row in read_trial_list(LISTS / "veri_test2.txt") for key in row[:2]}
    for number, key in enumerate(sorted(names)):
        path = corpora / "voxceleb1/wav" / key[:7] / key[8:19] / f"{key[20:]}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(sources[number % len(sources)], path)
    model = tmp_path / "exp" / tiny.model
    model.mkdir(parents=True)
    for name in ("final.pt", "model.json", "config.toml"):
        shutil.copy(tiny.exp / tiny.model / name, model)

    def run(*options):
        argv = ["./run.sh", "--egs", egs, "--corpora", corpora, "--lists", LISTS, "--nj", 2,
                "--data", tmp_path / "data", "--exp", tmp_path / "exp", *options]  # fmt: skip
        done = call(argv, timeout=400)
        assert done.returncode == 0, done.stderr[-3000:]

    # The mini corpus and this tree are not the published ones: stage 0 would refuse VoxCeleb1.
    run("--stage", 1, "--stop-stage", 4)
    run("--stage", 6, "--stop-stage", 7)
    metrics = json.loads((model / "scores/vox1_o_cosine.json").read_text())
    assert (metrics["trials"], metrics["targets"]) == (37611, 18802)
    lines = (model / "scores/vox1_o_cosine.txt").read_text().splitlines()
    listed = (tmp_path / "data/trials/vox1_o").read_text().splitlines()
    assert [x.split()[:2] for x in lines] == [x.split()[:2] for x in listed]
    assert len(listed) == 37611
