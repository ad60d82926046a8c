"""Trial lists and score files."""

import os

import numpy as np
import pytest

from sv.errors import SvError
from sv.kaldi.trials import read_trials, write_scores, write_trials

ROWS = [("b-1", "a-1", False), ("a-2", "a-1", True), ("a-1", "a-2", True), ("é", "c,d", False)]


def as_rows(trials):
    names = trials.utterances
    columns = zip(trials.enrol, trials.test, trials.is_target, strict=True)
    return [(names[e], names[t], bool(y)) for e, t, y in columns]


def test_trials_come_back_as_they_were_written(tmp_path):
    write_trials(tmp_path / "trials", ROWS)
    trials = read_trials(tmp_path / "trials")
    assert as_rows(trials) == ROWS
    assert len(set(trials.utterances)) == len(trials.utterances) == 5
    assert (trials.enrol.dtype, trials.is_target.dtype) == (np.int32, bool)
    os.utime(tmp_path / "trials", ns=(1, 1))
    write_trials(tmp_path / "trials", ROWS)
    assert (tmp_path / "trials").stat().st_mtime_ns == 1


def test_ids_that_look_like_numbers_or_nothing_stay_text(tmp_path):
    (tmp_path / "trials").write_text("007 1e3 target\nNULL nan nontarget\n")
    assert as_rows(read_trials(tmp_path / "trials")) == [
        ("007", "1e3", True), ("NULL", "nan", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Empty CSV file"),
        ("\n", "empty"),
        ("a b target\nc d Target\n", "line 2: the label must be target or nontarget, not 'Target'"),
        ("a b 1\n", "line 1: the label must be target or nontarget, not '1'"),
        ("a b target\na b\n", "expected lines 'enrol test target|nontarget'"),
        ("a  b target\n", "Expected 3 columns, got 4"),
        ("a b target\nb a target\na b target\n", "1 trials stand twice (first: line 3, a b)"),
        ("a b target\na b nontarget\n", "1 trials stand twice (first: line 2, a b)"),
    ],
)
def test_wrong_trials_are_one_line_that_names_the_file(tmp_path, text, message):
    (tmp_path / "trials").write_text(text)
    with pytest.raises(SvError) as error:
        read_trials(tmp_path / "trials")
    assert str(error.value).startswith(f"{tmp_path / 'trials'}: ")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_missing_trials_are_named(tmp_path):
    with pytest.raises(SvError, match=rf"^cannot read {tmp_path}/nosuch: [^\n]+$"):
        read_trials(tmp_path / "nosuch")


def test_scores_stand_in_the_order_of_the_trials(tmp_path):
    write_trials(tmp_path / "trials", ROWS)
    scores = np.array([1 / 3, -1e-9, 1.0, 0.12345678912])
    write_scores(tmp_path / "scores.txt", read_trials(tmp_path / "trials"), scores)
    lines = (tmp_path / "scores.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "b-1 a-1 0.3333333"
    assert [tuple(line.split(" ")[:2]) for line in lines] == [row[:2] for row in ROWS]
    assert [float(line.split(" ")[2]) for line in lines] == pytest.approx(scores, rel=1e-6)
