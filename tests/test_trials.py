"""Trial lists and score files."""

import os
import subprocess

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
        (
            "a b target\nb a target\na b target\n",
            "1 of 3 trials are listed twice (first: line 3, a b); ",
        ),
        ("a b target\na b nontarget\n", "1 of 2 trials are listed twice (first: line 2, a b); "),
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


def test_duplicates_are_counted_and_what_to_do_is_said(tmp_path):
    path = tmp_path / "trials"
    path.write_text("a b target\nb a target\na b target\na c target\nb a target\na b target\n")
    with pytest.raises(SvError) as error:
        read_trials(path)
    assert str(error.value) == (
        f"{path}: 3 of 6 trials are listed twice (first: line 3, a b; line 5, b a); "
        "none is dropped here; choose which to keep (the first ones: awk '!seen[$1,$2]++')"
    )
    done = subprocess.run(
        ["awk", "!seen[$1,$2]++", path], capture_output=True, text=True, check=True
    )
    path.write_text(done.stdout)
    assert len(read_trials(path).enrol) == 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_are_written_in_the_order_of_the_trials_and_exactly(tmp_path, dtype):
    write_trials(tmp_path / "trials", ROWS)
    scores = np.array([1 / 3, -1e-9, 1.0, 0.12345678912], dtype=dtype)
    write_scores(tmp_path / "scores.txt", read_trials(tmp_path / "trials"), scores)
    lines = (tmp_path / "scores.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == {np.float32: "b-1 a-1 0.33333334", np.float64: f"b-1 a-1 {1 / 3!r}"}[dtype]
    assert [tuple(line.split(" ")[:2]) for line in lines] == [row[:2] for row in ROWS]
    assert np.array_equal([dtype(line.split(" ")[2]) for line in lines], scores)


def test_lists_longer_than_what_is_written_or_read_at_once(tmp_path):
    rng = np.random.default_rng(0)
    names = [f"id{i:05d}-{'v' * (i % 40)}" for i in range(700)]
    pairs = rng.permutation(700 * 700)[:200_000]
    rows = [(names[p // 700], names[p % 700], p % 700 == p // 700) for p in pairs]
    write_trials(tmp_path / "trials", rows)
    trials = read_trials(tmp_path / "trials")
    assert as_rows(trials) == rows
    scores = rng.normal(size=len(rows)).astype(np.float32)
    write_scores(tmp_path / "scores.txt", trials, scores)
    with open(tmp_path / "scores.txt") as file:
        for (enrol, test, _), score, line in zip(rows, scores, file, strict=True):
            assert line.startswith(f"{enrol} {test} ") and np.float32(line.split()[2]) == score
