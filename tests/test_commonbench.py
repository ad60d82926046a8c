"""CommonBench's list in the forms that a user may hold, on a little Common Voice."""

import hashlib
import json

import pytest
from corpora import prepare, write_coded, write_config

from local.prepare_commonbench import read_list
from sv.errors import SvError
from sv.kaldi.data_dir import read_table
from sv.kaldi.trials import read_trials

CONFIG = """
train = "commonbench"
[trials]
commonbench = "commonbench"
[speech.commonbench]
path = "cv"
lists = "list.txt"
{more}
[augment]
"""
CLIPS = ["common_voice_en_1", "common_voice_en_2", "common_voice_sv-SE_3", "common_voice_en_4"]
TRIALS = [(0, 1, True), (0, 2, False), (1, 3, False)]


@pytest.fixture
def corpora(tmp_path):
    for number, clip in enumerate(CLIPS[:3]):
        language = clip.split("_")[2]
        write_coded(
            tmp_path / "cv" / language / "clips" / f"{clip}.mp3",
            rate_hz=48000, codec="mp3", seed=number,
        )  # fmt: skip
    header = "client_id\tpath\tsentence\tgender\n"
    speakers = {"en": ("a" * 128, "a" * 128), "sv-SE": ("b" * 128,)}
    (tmp_path / "cv/en/validated.tsv").write_text(
        header + f'{speakers["en"][0]}\t{CLIPS[0]}.mp3\ta "quote\tmale_masculine\n'
    )
    (tmp_path / "cv/en/other.tsv").write_text(
        header + f"{speakers['en'][1]}\t{CLIPS[1]}.mp3\ttext\t\n"
    )
    (tmp_path / "cv/sv-SE/validated.tsv").write_text(
        header + f"{speakers['sv-SE'][0]}\t{CLIPS[2]}.mp3\ttext\tfemale\n"
    )
    lines = [f"{int(t)} en/clips/{CLIPS[a]}.mp3 {CLIPS[b]}.mp3\n" for a, b, t in TRIALS]
    (tmp_path / "list.txt").write_text("".join(lines))
    write_config(tmp_path / "conf/corpora.toml", CONFIG.format(more="max_unmatched = 0.3"))
    return tmp_path


def test_the_list_is_matched_and_what_is_missing_is_said(corpora):
    done = prepare(corpora)
    data = corpora / "data"
    assert "1 of 4 clips are not below" in done.stderr and CLIPS[3] in done.stderr
    speakers = read_table(data / "commonbench/utt2spk")
    assert speakers[f"{'a' * 16}-{CLIPS[0]}"] == speakers[f"{'a' * 16}-{CLIPS[1]}"] == "a" * 16
    assert read_table(data / "commonbench/utt2language")[f"{'b' * 16}-{CLIPS[2]}"] == "sv-SE"
    assert read_table(data / "commonbench/utt2gender")[f"{'a' * 16}-{CLIPS[0]}"] == "male"
    trials = read_trials(data / "trials/commonbench")
    assert len(trials.enrol) == 2 and trials.is_target.sum() == 1
    source = json.loads((data / "trials/commonbench.source.json").read_text())
    sha256 = hashlib.sha256((corpora / "list.txt").read_bytes()).hexdigest()
    assert source["sha256"] == sha256 and source["trials"] == 3
    remarks = (data / "remarks.tsv").read_text()
    assert "commonbench\tpartial: 1 of 3 trials without audio" in remarks
    assert sha256[:16] in remarks


def test_more_missing_than_allowed_is_refused(corpora):
    write_config(corpora / "conf/corpora.toml", CONFIG.format(more=""))
    done = prepare(corpora, check=False)
    assert done.returncode == 1
    assert "1 of 4 clips are not below" in done.stderr
    assert "max_unmatched in corpora.toml allows 0.00%" in done.stderr


@pytest.mark.parametrize(
    "form",
    [
        "{label} {a} {b}",
        "{a}.mp3\t{b}.mp3\t{label}",
        "{a}.mp3,en/clips/{b}.mp3,{word}",
        "path1,path2,label\n{a},{b},{label}",
    ],
)
def test_columns_are_recognised(tmp_path, form):
    path = tmp_path / "list.txt"
    head, _, row = form.rpartition("\n")
    lines = [head] if head else []
    for a, b, target in TRIALS:
        word = "target" if target else "nontarget"
        lines.append(row.format(a=CLIPS[a], b=CLIPS[b], label=int(target), word=word))
    path.write_text("\ufeff" + "\r\n".join(lines) + "\r\n")
    assert read_list(path) == [(CLIPS[a], CLIPS[b], t) for a, b, t in TRIALS]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"1 {CLIPS[0]} {CLIPS[1]}\n1 {CLIPS[0]} x.mp3\n", "line 2: expected a label and two"),
        (f"1 {CLIPS[0]} {CLIPS[1]}\n{CLIPS[0]} {CLIPS[1]} 1\n", "line 2: expected a label"),
        (f"1 {CLIPS[0]}\n", "line 1: expected 3 columns, not 2"),
        (f"a b c\n{CLIPS[0]} {CLIPS[1]} yes\n", "line 2: no label"),
        ("", "no trials in it"),
    ],
)
def test_a_list_that_cannot_be_understood(tmp_path, text, message):
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(SvError, match=message):
        read_list(path)
