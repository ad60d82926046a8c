"""CN-Celeb in both enrolment protocols."""

import shutil

import pytest
from corpora import prepare, write_audio, write_config

from sv.kaldi.data_dir import read_table
from sv.kaldi.trials import read_models, read_trials

CONFIG = """
train = "cnceleb"
[trials]
cnceleb = "cnceleb"
cnceleb_avg = "cnceleb"
[speech.cnceleb]
path = "CN-Celeb_flac"
[augment]
"""
SPEAKERS = ("id00800", "id00801")


@pytest.fixture
def corpora(tmp_path):
    corpus = tmp_path / "CN-Celeb_flac"
    lists = corpus / "eval/lists"
    lists.mkdir(parents=True)
    enrol, sources, trials = [], [], []
    for seed, speaker in enumerate(SPEAKERS):
        write_audio(corpus / f"eval/enroll/{speaker}-enroll.flac", seed=seed)
        write_audio(corpus / f"eval/test/{speaker}-singing-01-001.flac", seed=seed + 10)
        enrol.append(f"{speaker}-enroll enroll/{speaker}-enroll.wav\n")
        names = [f"{speaker}/speech-0{n}-00{n}.wav" for n in (1, 2)]
        for number, name in enumerate(names):
            write_audio(corpus / "data" / name.replace(".wav", ".flac"), seed=20 + number)
        sources.append(f"{speaker}-enroll {' '.join(names)}\n")
        trials += [
            f"{speaker}-enroll test/{other}-singing-01-001.wav {int(speaker == other)}\n"
            for other in SPEAKERS
        ]
    (lists / "enroll.lst").write_text("".join(enrol))
    (lists / "enroll.map").write_text("".join(sources))
    (lists / "trials.lst").write_text("".join(trials))
    write_config(tmp_path / "conf/corpora.toml", CONFIG)
    return tmp_path


def test_both_protocols(corpora):
    """Lists say .wav, the files are .flac; the second protocol enrols the sources."""
    prepare(corpora)
    data = corpora / "data"
    utterances = read_table(data / "cnceleb/utt2spk")
    assert len(utterances) == 2 + 2 + 4  # enrolment files, test files, sources
    for name in ("cnceleb", "cnceleb_avg"):
        trials = read_trials(data / "trials" / name)
        assert len(trials.enrol) == 4 and trials.is_target.sum() == 2
    assert read_models(data / "trials/cnceleb") == {}
    models = read_models(data / "trials/cnceleb_avg")
    assert models["id00800-average"] == (
        "id00800-data-speech-01-001", "id00800-data-speech-02-002",
    )  # fmt: skip
    assert "id00800-enroll" in utterances and not models.keys() & utterances.keys()
    assert read_table(data / "cnceleb/utt2genre")["id00801-singing-01-001"] == "singing"
    remarks = (data / "remarks.tsv").read_text()
    assert "cnceleb\tits list has 4 trials, that of CN-Celeb v2 3484292" in remarks


def test_one_protocol_needs_only_its_own_files(corpora):
    config = corpora / "conf/corpora.toml"
    config.write_text(CONFIG.replace('cnceleb_avg = "cnceleb"\n', ""))
    shutil.rmtree(corpora / "CN-Celeb_flac/data")
    prepare(corpora)
    assert len(read_table(corpora / "data/cnceleb/utt2spk")) == 4


def test_a_missing_file(corpora):
    (corpora / "CN-Celeb_flac/data/id00800/speech-01-001.flac").unlink()
    done = prepare(corpora, check=False)
    assert done.returncode == 1 and "1 of 8 files missing" in done.stderr
    prepare(corpora, "--allow-partial", "true")
    assert len(read_trials(corpora / "data/trials/cnceleb").enrol) == 4
    # A model without one of its utterances would be another model.
    assert len(read_trials(corpora / "data/trials/cnceleb_avg").enrol) == 2
    assert "cnceleb_avg\tpartial: 2 of 4 trials" in (corpora / "data/remarks.tsv").read_text()


def test_a_list_of_another_form(corpora):
    (corpora / "CN-Celeb_flac/eval/lists/trials.lst").write_text("id00800-enroll test/x.wav\n")
    done = prepare(corpora, check=False)
    assert done.returncode == 1 and "trials.lst: line 1: expected 3 columns" in done.stderr
    (corpora / "CN-Celeb_flac/eval/lists/trials.lst").write_text("id9-enroll test/x.wav 1\n")
    done = prepare(corpora, check=False)
    assert done.returncode == 1 and "trials.lst: line 1: 'id9-enroll" in done.stderr
