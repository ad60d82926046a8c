"""Configs are refused key by key, and files appear whole or not at all."""

import dataclasses
import gzip
import os

import pytest

from sv.config import read_config
from sv.errors import SvError, UsageError
from sv.files import read_json, read_text, replacing, write_json, write_text


@dataclasses.dataclass(frozen=True)
class Margin:
    scale: float = 30.0
    until_epoch: int = 20


@dataclasses.dataclass(frozen=True)
class Config:
    learning_rate: float
    epochs: int
    shuffle: bool = True
    note: str | None = None
    factors: tuple[float, ...] = ()
    roots: dict[str, str] = dataclasses.field(default_factory=dict)
    margin: Margin = Margin()

    def __post_init__(self):
        if self.epochs < 1:
            raise ValueError("epochs must be at least 1")


GOOD = "learning_rate = 1\nepochs = 3\n"


def read(tmp_path, text):
    path = tmp_path / "train.toml"
    path.write_text(text)
    return read_config(path, Config)


def test_a_full_config_is_read_with_its_types(tmp_path):
    text = GOOD + (
        'shuffle = false\nnote = "x"\nfactors = [1, 0.5]\n'
        'roots = { musan = "a" }\n[margin]\nscale = 32\n'
    )
    config = read(tmp_path, text)
    assert config == Config(1.0, 3, False, "x", (1.0, 0.5), {"musan": "a"}, Margin(32.0, 20))
    assert type(config.learning_rate) is float and type(config.margin.scale) is float


def test_fields_with_a_default_may_be_absent(tmp_path):
    assert read(tmp_path, GOOD) == Config(1.0, 3)


REFUSED = {
    "unknown key, near": (
        GOOD + "leaning_rate = 1\n",
        "unknown key 'leaning_rate' (did you mean 'learning_rate'?)",
    ),
    "unknown key, far": (GOOD + "zzz = 1\n", "unknown key 'zzz' (known: learning_rate, epochs,"),
    "missing key": ("epochs = 3\n", "missing key 'learning_rate'"),
    "float for int": ("learning_rate = 1\nepochs = 3.0\n", "epochs must be int, not 3.0"),
    "text for float": ('learning_rate = "1"\nepochs = 3\n', "learning_rate must be float, not '1'"),
    "bool for int": ("learning_rate = 1\nepochs = true\n", "epochs must be int, not True"),
    "bool for float": ("learning_rate = true\nepochs = 1\n", "learning_rate must be float, not"),
    "int for bool": (GOOD + "shuffle = 1\n", "shuffle must be bool, not 1"),
    "wrong optional": (GOOD + "note = 1\n", "note must be str, not 1"),
    "scalar for list": (GOOD + "factors = 1\n", "factors must be a list"),
    "wrong item": (GOOD + 'factors = [1, "2"]\n', "factors must be float, not '2'"),
    "scalar for table": (GOOD + "margin = 1\n", "margin must be a table"),
    "scalar for dict": (GOOD + "roots = 1\n", "roots must be a table"),
    "wrong in dict": (GOOD + "roots = { musan = 1 }\n", "roots.musan must be str, not 1"),
    "unknown in table": (
        GOOD + "[margin]\nscal = 1\n",
        "[margin]: unknown key 'scal' (did you mean 'scale'?)",
    ),
    "wrong in table": (
        GOOD + '[margin]\nuntil_epoch = "x"\n',
        "[margin]: until_epoch must be int, not 'x'",
    ),
    "refused by the class": ("learning_rate = 1\nepochs = 0\n", "epochs must be at least 1"),
    "not TOML": ("epochs = \n", "not TOML"),
    "key twice": (GOOD + "epochs = 4\n", "not TOML: a key is there twice in line 3: 'epochs = 4'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_config_says_file_and_key(tmp_path, case):
    text, message = REFUSED[case]
    with pytest.raises(UsageError) as error:
        read(tmp_path, text)
    assert str(error.value).startswith(f"{tmp_path / 'train.toml'}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_config_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match=r"nosuch\.toml: No such file"):
        read_config(tmp_path / "nosuch.toml", Config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("untraind = true\n", "unknown key 'untraind' (did you mean 'untrained'?)"),
        ('untrained = "true"\n', "untrained must be bool, not 'true'"),
    ],
)
def test_program_ends_with_one_line_and_status_2(run_cli, tmp_path, text, message):
    (tmp_path / "models.txt").write_text("resnet18_d\n")
    (tmp_path / "score.toml").write_text(text)
    (tmp_path / "train.toml").write_text("")
    done = run_cli("sv.bin.recipe", "settings", tmp_path, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"sv.bin.recipe: {tmp_path / 'score.toml'}: {message}\n"


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    for name in ("table", "table.gz"):
        path = tmp_path / name
        write_text(path, "old")
        before = path.read_bytes()
        with pytest.raises(KeyboardInterrupt), replacing(path) as file:
            file.write("new" * 100_000)
            raise KeyboardInterrupt
        assert path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["table", "table.gz"]


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "sub" / "table"
    write_text(path, "old")
    with replacing(path, mode="wb") as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["table"]


def test_keep_if_same_keeps_the_time_of_the_same_bytes_only(tmp_path):
    path = tmp_path / "table"
    write_text(path, "a\n")
    os.utime(path, ns=(1, 1))
    write_text(path, "a\n", keep_if_same=True)
    assert path.stat().st_mtime_ns == 1
    write_text(path, "b\n", keep_if_same=True)  # as long, not the same
    assert path.stat().st_mtime_ns != 1 and path.read_text() == "b\n"
    os.utime(path, ns=(1, 1))
    write_text(path, "b\n")
    assert path.stat().st_mtime_ns != 1
    assert os.listdir(tmp_path) == ["table"]


def test_gz_is_the_same_bytes_whatever_its_name_and_time(tmp_path, monkeypatch):
    write_text(tmp_path / "a.gz", "cut\n" * 1000)
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    with replacing(tmp_path / "b.gz") as file:
        file.writelines(["cut\n"] * 1000)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()) == b"cut\n" * 1000


def test_unwritable_places_are_one_line(tmp_path):
    write_text(tmp_path / "file", "x")
    for path in (tmp_path / "file" / "y", tmp_path):  # a folder that is a file, and the reverse
        with pytest.raises(SvError, match=f"^cannot write {path}: [^\n]+$"):
            write_text(path, "z")
    (tmp_path / "locked").mkdir(mode=0o500)
    if os.geteuid() != 0:  # root may write everywhere
        with pytest.raises(SvError, match="Permission denied"):
            write_text(tmp_path / "locked" / "y", "z")
    assert sorted(os.listdir(tmp_path)) == ["file", "locked"]
    assert not [name for name in os.listdir(tmp_path.parent) if name.endswith(".tmp")]


def test_text_is_read_whatever_editor_wrote_it(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfa\r\nb\r\n")
    assert read_text(tmp_path / "a") == "a\nb\n"
    (tmp_path / "a").write_bytes(b"a\xff")
    with pytest.raises(SvError, match=r"not UTF-8 text .* at byte 1"):
        read_text(tmp_path / "a")


def test_json_is_strict_both_ways(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"é": None})
    assert path.read_text(encoding="utf-8") == '{\n "é": null\n}\n'
    assert read_json(path) == {"é": None}
    with pytest.raises(ValueError):
        write_json(path, float("nan"))
    path.write_text('{\n "a": 1,\n}')
    with pytest.raises(SvError, match=r"a\.json: not JSON: .* in line"):
        read_json(path)
