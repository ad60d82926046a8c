"""Corpus preparation: AN4, where it is at hand, and requests that are refused."""

import pytest
import soundfile
from conftest import SHARED_DATA

from local.corpora import Request
from local.prepare_an4 import prepare
from sv.data.cuts import load_samples
from sv.data.manifests import read_manifest
from sv.kaldi.data_dir import find_problems, read_table
from sv.kaldi.trials import read_trials

AN4 = SHARED_DATA / "an4"
needs_an4 = pytest.mark.skipif(not AN4.is_dir(), reason=f"no AN4 in {SHARED_DATA}")


@needs_an4
def test_an4_has_its_speakers_utterances_and_pairs(tmp_path):
    prepare(Request(AN4, tmp_path, AN4, {}))
    for name, speakers, utterances in (("an4_train", 74, 948), ("an4_test", 10, 130)):
        assert not find_problems(tmp_path / name, require=["wav.scp", "utt2dur"])
        assert len(read_table(tmp_path / name / "spk2utt")) == speakers
        assert len(read_table(tmp_path / name / "utt2spk")) == utterances
    trials = read_trials(tmp_path / "trials" / "an4")
    assert len(trials.enrol) == 8385
    for entry in (tmp_path / "manifests").iterdir():
        assert entry.name.endswith(".jsonl.gz")


@needs_an4
@pytest.mark.parametrize(("ending", "form"), [("wav", "WAV"), ("sph", "NIST")])
def test_an4_in_its_public_forms(tmp_path, ending, form):
    """The database as it is distributed: RIFF or NIST SPHERE instead of FLAC."""
    corpus = tmp_path / "an4"
    for folder in ("an4_clstk", "an4test_clstk"):
        for speaker in sorted((AN4 / "wav" / folder).iterdir())[:2]:
            for path in sorted(speaker.glob("*.flac"))[:3]:
                target = corpus / "wav" / folder / speaker.name / f"{path.stem}.{ending}"
                target.parent.mkdir(parents=True, exist_ok=True)
                samples, rate = soundfile.read(path, dtype="int16")
                soundfile.write(target, samples, rate, subtype="PCM_16", format=form)
    prepare(Request(corpus, tmp_path / "data", corpus, {}))
    assert len(read_table(tmp_path / "data" / "an4_train" / "utt2spk")) == 6
    for cut in read_manifest(tmp_path / "data" / "an4_test" / "cuts.jsonl.gz"):
        assert len(load_samples(cut)) == cut.num_samples


def test_a_corpus_without_a_program_is_refused(tmp_path, run_cli):
    config = tmp_path / "corpora.toml"
    config.write_text('train = "x"\n[trials]\nx = "x"\n[speech.nothing]\npath = "x"\n[augment]\n')
    argv = ["local.prepare_data", "--config", config, "--corpora", tmp_path, tmp_path / "data"]
    done = run_cli(*argv, check=False)
    assert done.returncode == 2 and "no local/prepare_nothing.py" in done.stderr
    config.write_text('train = "x"\n[trials]\n[speech]\n[augment]\nhum = ["x"]\n')
    done = run_cli(*argv, check=False)
    assert done.returncode == 2 and "the kinds are babble, music, noise, reverb" in done.stderr
    done = run_cli("local.prepare_data", "--config", "egs/an4/conf/corpora.toml", tmp_path,
                   check=False)  # fmt: skip
    assert done.returncode == 2 and "give --corpora DIR" in done.stderr
