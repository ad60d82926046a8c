"""Archives, tables, data directories, trial lists and score files, through real files."""

import os
import shutil
import struct

import kaldiio
import numpy as np
import pytest

from sv.errors import SvError
from sv.kaldi.archive import read_matrix, read_vectors, write_archive
from sv.kaldi.data_dir import read_table, write_data_dir, write_table
from sv.kaldi.trials import read_trials, write_scores, write_trials

UTT2SPK = {f"id{s:05d}-v{v}-0000{u}": f"id{s:05d}" for s in (2, 12) for v in "ba" for u in (1, 2)}


def features(rows=120, columns=81, seed=0):
    """Return a matrix with the range of log-mel features, about -16 to 10."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-15.9, 10, (rows, columns)).astype(np.float32)


def write(tmp_path, method, **items):
    scp = tmp_path / "feats.scp"
    count = write_archive(tmp_path / "feats.ark", scp, iter(items.items()), method=method)
    assert count == len(items)
    return scp, read_table(scp)


# Half a step over the matrix's range, and the rounding of float32.
@pytest.mark.parametrize(
    ("method", "magic", "half_step"),
    [
        ("two-byte", b"\0BCM2 ", 0.51 / 65535),
        ("one-byte", b"\0BCM3 ", 0.502 / 255),
        ("none", b"\0BFM \4", 0.0),
    ],
)
def test_matrices_are_those_that_kaldiio_reads(tmp_path, method, magic, half_step):
    items = {f"u{i}": features(rows, seed=i) for i, rows in enumerate((1, 120, 357))}
    scp, table = write(tmp_path, method, **items)
    assert sorted(os.listdir(tmp_path)) == ["feats.ark", "feats.scp"]
    assert list(table) == list(items)
    for key, matrix in items.items():
        whole = kaldiio.load_mat(table[key])
        assert np.abs(whole - matrix).max() <= half_step * np.ptp(matrix)
        read = read_matrix(table[key])
        assert read.dtype == np.float32
        np.testing.assert_allclose(read, whole, atol=4e-6, rtol=0)
    assert dict(kaldiio.load_scp(str(scp))).keys() == items.keys()
    assert (tmp_path / "feats.ark").read_bytes()[3:9] == magic


def test_one_byte_values_are_those_of_kaldi(tmp_path):
    """The arithmetic of FloatToUint8 and CopyToMat in Kaldi's src/matrix/compressed-matrix.cc."""
    matrix = features(50)
    _, table = write(tmp_path, "one-byte", u=matrix, constant=np.full((3, 4), -2.5, "f4"))
    data = (tmp_path / "feats.ark").read_bytes()
    least, extent, rows, columns = struct.unpack_from("<ffii", data, 8)
    assert (least, extent) == (matrix.min(), matrix.max() - matrix.min())
    assert (rows, columns) == matrix.shape
    stored = np.frombuffer(data, "u1", matrix.size, 24).reshape(matrix.shape)
    fraction = (matrix - np.float32(least)) / np.float32(extent)
    assert (stored == (fraction.astype("f8") * 255 + 0.499).astype("u1")).all()
    assert (stored.min(), stored.max()) == (0, 255)
    values = np.float32(least) + stored * np.float32(extent * (1 / 255))
    np.testing.assert_allclose(read_matrix(table["u"]), values, atol=4e-6)
    assert (read_matrix(table["constant"]) == -2.5).all()


@pytest.mark.parametrize("method", ["two-byte", "one-byte", "none"])
def test_truncated_archive_is_named(tmp_path, method):
    _, table = write(tmp_path, method, u=features(20))
    ark = tmp_path / "feats.ark"
    os.truncate(ark, ark.stat().st_size - 1)
    with pytest.raises(SvError, match=rf"^{ark}:2: truncated: \d+ of \d+ bytes are there"):
        read_matrix(table["u"])
    os.truncate(ark, 10)
    with pytest.raises(SvError, match=rf"^{ark}:2: no Kaldi matrix of rows there"):
        read_matrix(table["u"])


def test_matrices_stored_by_columns_and_wrong_entries_are_refused(tmp_path):
    ark = tmp_path / "cm.ark"
    kaldiio.save_ark(str(ark), {"u": features(20)}, compression_method=2)
    assert ark.read_bytes()[2:7] == b"\0BCM "
    for entry in (f"{ark}:2", f"{ark}:9999"):
        with pytest.raises(SvError, match="no Kaldi matrix of rows there|truncated"):
            read_matrix(entry)
    for entry in (str(ark), f"{ark}:x", ""):
        with pytest.raises(SvError, match="expected '<ark>:<offset>'"):
            read_matrix(entry)
    with pytest.raises(SvError, match=r"cannot read .*nosuch\.ark: No such file"):
        read_matrix(f"{tmp_path}/nosuch.ark:2")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_found(tmp_path, bad):
    matrix = features(20)
    matrix[7, 3] = bad
    _, table = write(tmp_path, "none", t=features(20), u=matrix)
    assert read_matrix(table["t"]).shape == (20, 81)
    with pytest.raises(SvError, match=rf"{tmp_path}/feats.ark:\d+: NaN or infinity"):
        read_matrix(table["u"])
    scp, _ = write(tmp_path, "none", u0=features(1)[0], u1=matrix[7])
    with pytest.raises(SvError, match=r"1 vectors hold NaN or infinity \(first: u1\)"):
        read_vectors(scp)


def test_vectors_come_back_in_file_order(tmp_path):
    vectors = features(3, 256)
    scp, _ = write(tmp_path, "none", b=vectors[0], a=vectors[1], c=vectors[2])
    keys, read = read_vectors(scp)
    assert keys == ["b", "a", "c"]
    np.testing.assert_array_equal(read, vectors)


VECTOR_FAULTS = {
    "is listed twice": lambda tmp, text: text + text,
    "cannot read": lambda tmp, text: text.replace("feats.ark", "nosuch.ark"),
    "expected '<ark>:<offset>'": lambda tmp, text: "u0\n",
    "empty": lambda tmp, text: "",
    "cannot read the vectors": lambda tmp, text: os.truncate(tmp / "feats.ark", 60) or text,
    "no Kaldi vector there": lambda tmp, text: (tmp / "feats.ark").write_text("x" * 99) and text,
}


@pytest.mark.parametrize("message", VECTOR_FAULTS)
def test_damaged_vectors_are_one_line_that_names_the_table(tmp_path, message):
    scp, _ = write(tmp_path, "none", u0=features(1, 8)[0], u1=features(1, 8)[0])
    scp.write_text(VECTOR_FAULTS[message](tmp_path, scp.read_text()))
    with pytest.raises(SvError, match=f"^[^\n]*{scp}[^\n]*$") as error:
        read_vectors(scp)
    assert message in str(error.value)


def test_vectors_of_two_sizes_are_refused(tmp_path):
    scp, _ = write(tmp_path, "none", u0=features(1, 8)[0], u1=features(1, 9)[0])
    with pytest.raises(SvError, match="vectors of different shapes"):
        read_vectors(scp)


def test_failed_writing_leaves_the_earlier_archive(tmp_path):
    scp, table = write(tmp_path, "none", u=features(5))

    def items():
        yield "v", features(5)
        raise SvError("no such recording")

    with pytest.raises(SvError, match="no such recording"):
        write_archive(tmp_path / "feats.ark", scp, items(), method="none")
    np.testing.assert_array_equal(read_matrix(read_table(scp)["u"]), features(5))
    (tmp_path / "file").write_text("")
    with pytest.raises(SvError, match="cannot write"):
        ark = tmp_path / "nosuch" / "a.ark"
        good = iter([("v", features(5))])
        write_archive(ark, tmp_path / "file" / "a.scp", good, method="none")


def test_tables_are_in_c_order_and_unchanged_ones_keep_their_time(tmp_path):
    path = tmp_path / "utt2dur"
    write_table(path, {"a-b": 1.5, "a": 2, "Z": 3, "é": 4})
    assert path.read_text(encoding="utf-8") == "Z 3\na 2\na-b 1.5\né 4\n"
    os.utime(path, ns=(1, 1))
    write_table(path, {"é": "4", "a": "2", "Z": "3", "a-b": "1.5"})
    assert path.stat().st_mtime_ns == 1
    assert read_table(path) == {"Z": "3", "a": "2", "a-b": "1.5", "é": "4"}


@pytest.fixture
def data_dir(tmp_path):
    path = tmp_path / "data"
    tables = {
        "wav_scp": {u: f"{u}.wav" for u in UTT2SPK},
        "feats_scp": {u: f"x.ark:{i}" for i, u in enumerate(UTT2SPK)},
        "utt2num_frames": dict.fromkeys(UTT2SPK, 300),
    }
    write_data_dir(path, UTT2SPK, **tables)
    return path


def script(run_cli, name, *argv, check=True):
    return run_cli(f"utils/{name}_data_dir.sh", *argv, check=check)


def test_a_good_data_dir_is_valid_and_fixing_changes_nothing(run_cli, data_dir):
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in data_dir.iterdir()}
    assert read_table(data_dir / "spk2utt")["id00012"] == (
        "id00012-va-00001 id00012-va-00002 id00012-vb-00001 id00012-vb-00002"
    )
    done = script(run_cli, "validate", "--require", "wav.scp feats.scp", data_dir)
    said = f"utils/validate_data_dir.sh: successfully validated data directory {data_dir}\n"
    assert (done.stdout, done.stderr) == ("", said)
    assert script(run_cli, "fix", data_dir).stderr == ""
    assert before == {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in data_dir.iterdir()}


def edit(name, change):
    return lambda folder: (folder / name).write_text(change((folder / name).read_text()))


def reverse(text):
    return "".join(reversed(text.splitlines(keepends=True)))


def first_line_again(text):
    return text.splitlines(keepends=True)[0] + text


# What is done to a valid folder, what validate says, what fix says (None: it leaves that alone).
FAULTS = {
    "unsorted": (
        edit("utt2spk", reverse), "utt2spk: not in C order", "utt2spk: rewritten"),
    "no spk2utt": (
        lambda d: (d / "spk2utt").unlink(), "spk2utt: no such file", "spk2utt: rewritten"),
    "wrong spk2utt": (
        edit("spk2utt", lambda text: text.replace(" id00012-va-00001", "")),
        "spk2utt: is not the inverse of utt2spk", "spk2utt: rewritten"),
    "stray utterance": (
        edit("feats.scp", lambda text: text + "id00099-va-00001 x.ark:5\n"),
        "feats.scp: utterances not in utt2spk: 1 (id00099-va-00001)",
        "feats.scp: removed 1 lines"),
    "missing utterance": (
        edit("feats.scp", lambda text: text.split("\n", 1)[1]),
        "feats.scp: utterances missing: 1 (id00002-va-00001)", "utt2spk: removed 1 lines"),
    "duplicate key": (
        edit("utt2num_frames", first_line_again), "line 2: 'id00002-va-00001' is listed", None),
    "key without value": (
        edit("wav.scp", lambda text: "a\n" + text), "line 1: expected '<key> <value>'", None),
    "no end of line": (
        edit("utt2spk", str.rstrip), "utt2spk: its last line has no end", "utt2spk: rewritten"),
    "two speakers": (
        edit("utt2spk", lambda text: text.replace("\n", " id00002\n", 1)),
        "utt2spk: lines with another value than there can be: 1 (id00002-va-00001", None),
    "no frames": (
        edit("utt2num_frames", lambda text: text.replace(" 300\n", " 0\n", 1)),
        "utt2num_frames: lines with another value than there can be: 1 (id00002", None),
    "empty": (edit("wav.scp", lambda text: ""), "wav.scp: empty", None),
    "no utt2spk": (lambda d: (d / "utt2spk").unlink(), "utt2spk: no such file", None),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named_and_repaired_if_it_can_be(run_cli, data_dir, fault):
    spoil, message, repair = FAULTS[fault]
    spoil(data_dir)
    spoilt = {path.name: path.read_bytes() for path in data_dir.iterdir()}
    done = script(run_cli, "validate", data_dir, check=False)
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and done.stdout == ""
    assert message in lines[0]
    assert lines[-1] == "utils/validate_data_dir.sh: utils/fix_data_dir.sh may repair it"
    assert all(line.startswith("utils/validate_data_dir.sh: ") for line in lines)
    done = script(run_cli, "fix", data_dir, check=False)
    if repair is None:
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert {path.name: path.read_bytes() for path in data_dir.iterdir()} == spoilt
    else:
        assert done.returncode == 0 and repair in done.stderr
        script(run_cli, "validate", data_dir)
        for path in (data_dir / ".backup").glob("*"):
            assert path.read_bytes() == spoilt[path.name]


def test_kaldi_s_flags_leave_a_table_unread(run_cli, data_dir):
    for name in ("feats.scp", "wav.scp", "text"):
        (data_dir / name).write_text("stray x\n")
    script(run_cli, "validate", "--no-feats", "--no-wav", "--no-text", data_dir)
    for table, other in (("text", "wav"), ("wav.scp", "feats"), ("feats.scp", "text")):
        done = script(run_cli, "validate", f"--no-{other}", data_dir, check=False)
        assert done.returncode == 1 and f"/{table}: " in done.stderr
        assert f"/{other}" not in done.stderr
    done = script(run_cli, "validate", "--no-such", data_dir, check=False)
    assert done.returncode == 2 and "unknown option --no-such" in done.stderr


def test_a_folder_that_is_not_there_is_called_that(run_cli, tmp_path):
    for which in ("validate", "fix"):
        done = script(run_cli, which, tmp_path / "nosuch", check=False)
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert f"no such folder {tmp_path / 'nosuch'}" in done.stderr


def test_ids_without_their_speaker_are_named_and_not_guessed_at(run_cli, data_dir):
    with pytest.raises(SvError, match="utterance 'x-id1' does not begin with 'id1'"):
        write_data_dir(data_dir, {"x-id1": "id1"})
    shutil.rmtree(data_dir)
    data_dir.mkdir()
    (data_dir / "utt2spk").write_text("u1 id1\n")
    (data_dir / "spk2utt").write_text("id1 u1\n")
    for action in ("validate", "fix", "validate"):
        done = script(run_cli, action, data_dir, check=False)
        assert done.returncode == int(action == "validate")
        if action == "validate":
            assert "ids that do not begin with their speaker: 1 (u1)" in done.stderr
    assert read_table(data_dir / "utt2spk") == {"u1": "id1"}


def test_speakers_that_stand_apart_are_refused_as_kaldi_does(run_cli, data_dir):
    """One is the beginning of another: `sort -k2` of utt2spk gives another order."""
    shutil.rmtree(data_dir)
    write_data_dir(data_dir, {"mark-1": "mark", "mark-2-1": "mark-2", "mark-3": "mark"})
    (data_dir / "spk2gender").write_text("mark m\n")
    done = script(run_cli, "validate", data_dir, check=False)
    assert done.returncode == 1 and "do not stand together" in done.stderr
    assert "1 (mark)" in done.stderr and "speakers missing: 1 (mark-2)" in done.stderr
    (data_dir / "spk2gender").write_text("mark m\nmark-2 f\n")
    script(run_cli, "validate", "--no-spk-sort", data_dir)


def test_required_tables_must_be_there_whatever_their_name(run_cli, data_dir):
    for name in ("utt2dur", "text"):
        done = script(run_cli, "validate", "--require", f"wav.scp {name}", data_dir, check=False)
        assert done.returncode == 1
        assert f"{data_dir}/{name}: no such file" in done.stderr


def test_merged_tables_are_sorted_and_unchanged_ones_keep_their_time(run_cli, tmp_path):
    merged = tmp_path / "feats.scp"
    (tmp_path / "1").write_text("a-b 1\nc 3\n")
    (tmp_path / "2").write_text("B 0\na 2\n")
    run_cli("utils/merge_tables.sh", merged, tmp_path / "1", tmp_path / "2")
    assert merged.read_text() == "B 0\na 2\na-b 1\nc 3\n"
    for part in ("1", "2"):
        os.utime(tmp_path / part, ns=(1, 1))
    os.utime(merged, ns=(5, 5))
    run_cli("utils/merge_tables.sh", merged, tmp_path / "2", tmp_path / "1")
    assert merged.stat().st_mtime_ns == 5
    done = run_cli("utils/merge_tables.sh", merged, tmp_path / "1", tmp_path / "3", check=False)
    assert done.returncode == 1
    assert done.stderr == f"utils/merge_tables.sh: no such file {tmp_path / '3'}\n"
    assert sorted(os.listdir(tmp_path)) == ["1", "2", "feats.scp"]
    assert merged.stat().st_mtime_ns == 5
    # A part made anew may read the same; what it points to is new all the same.
    os.utime(tmp_path / "2", ns=(9, 9))
    run_cli("utils/merge_tables.sh", merged, tmp_path / "1", tmp_path / "2")
    assert merged.stat().st_mtime_ns > 9


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
        (
            "a b target\nc d Target\n",
            "1 labels are none of target, nontarget (first: line 2, 'Target')",
        ),
        ("a b 1\n", "1 labels are none of target, nontarget (first: line 1, '1')"),
        ("a b target\na b\n", "expected lines 'enrol test target|nontarget'"),
        ("a  b target\n", "Expected 3 columns, got 4"),
        (
            "b b target\na b target\nb a target\na b nontarget\n",
            "1 trials are listed with both labels (first: a b: line 2, target; line 4, nontarget)",
        ),
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


def test_a_pair_counts_as_often_as_it_stands(tmp_path, caplog):
    path = tmp_path / "trials"
    path.write_text("a b target\nb a target\na b target\na c target\nb a target\na b target\n")
    assert len(read_trials(path).enrol) == 6
    assert caplog.messages == [
        f"{path}: 3 of 6 trials repeat an earlier one; each counts as often as it stands"
    ]


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
