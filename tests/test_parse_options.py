"""utils/parse_options.sh: strict options whose values are text, and help from the block itself."""

import os
import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, call, environment

SCRIPT = """#!/usr/bin/env bash
# Prints its options and arguments.
# Usage: show.sh [options] <x>
#  e.g.: show.sh --nj 3 data
set -euo pipefail

# Begin configuration section.
nj=2              # number of parallel jobs
resume=true       # true|false: go on
model=            # model name, required
stop_stage=8      # last stage, "8" for all
cmd="utils/run.py"  # how jobs are run
# A comment between.
bare=no
# End configuration section.
hidden=1
. {root}/utils/parse_options.sh
[ $# -le 4 ] || usage
[ "$model" != lost ] || die "no such model"
printf '%s|' "$nj" "$resume" "$model" "$stop_stage" "$cmd" "$bare" "$hidden"
printf '<%s>' "$@"
"""

HELP = """Prints its options and arguments.
Usage: show.sh [options] <x>
 e.g.: show.sh --nj 3 data

Options (default):
  --nj               number of parallel jobs (2)
  --resume           true|false: go on (true)
  --model            model name, required
  --stop-stage       last stage, "8" for all (8)
  --cmd              how jobs are run (utils/run.py)
  --bare              (no)
"""

DEFAULTS = "2|true||8|utils/run.py|no|1|"


@pytest.fixture
def show(run_cli, tmp_path):
    (tmp_path / "show.sh").write_text(SCRIPT.replace("{root}", str(ROOT)))
    (tmp_path / "show.sh").chmod(0o755)

    def run(*argv, status=0):
        done = run_cli("./show.sh", *argv, cwd=tmp_path, check=False)
        assert done.returncode == status, done.stderr
        return done

    return run


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        ([], DEFAULTS + "<>"),
        (["a", "b c", ""], DEFAULTS + "<a><b c><>"),
        (["--nj", "12", "--resume", "false", "a"], "12|false||8|utils/run.py|no|1|<a>"),
        (["--stop-stage", "3", "a"], "2|true||3|utils/run.py|no|1|<a>"),
        (["--stop_stage", "3", "a"], "2|true||3|utils/run.py|no|1|<a>"),
        (["--model", "", "--bare", "-1", "a"], "2|true||8|utils/run.py|-1|1|<a>"),
        (["--model", "a=b", "--model", "c", "a"], "2|true|c|8|utils/run.py|no|1|<a>"),
        (["--model", "3", "--model", "c"], "2|true|c|8|utils/run.py|no|1|<>"),
        (["--nj", "1", "--", "--nj", "x"], "1|true||8|utils/run.py|no|1|<--nj><x>"),
        (["a", "--", "cmd", "--opt"], DEFAULTS + "<a><--><cmd><--opt>"),
    ],
)
def test_options_are_set_and_arguments_are_left(show, argv, shown):
    assert show(*argv).stdout == shown


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--modle", "x"], "unknown option --modle"),
        (["--hidden", "x"], "unknown option --hidden"),
        (["--stop", "1"], "unknown option --stop"),
        (["-n", "1"], "unknown option -n"),
        (["--n.", "1"], "unknown option --n."),
        (["--PATH", "x"], "unknown option --PATH"),
        (["--model"], "option --model needs a value"),
        (["--model", "--nj", "3"], "option --model needs a value"),
        (["--model", "--", "a"], "option --model needs a value"),
        (["--nj", "two"], "--nj must be a whole number, not 'two'"),
        (["--nj", "2.5"], "--nj must be a whole number, not '2.5'"),
        (["--nj", "-1"], "--nj must be a whole number, not '-1'"),
        (["--nj", ""], "--nj must be a whole number, not ''"),
        (["--stop-stage", "1 2"], "--stop-stage must be a whole number, not '1 2'"),
        (["--resume", "yes"], "--resume must be true or false, not 'yes'"),
        (["--resume", ""], "--resume must be true or false, not ''"),
        (["--model=x", "a"], "write '--model x' instead of '--model=x'"),
        (["a", "--model", "x"], "option --model must come before the arguments"),
        (["a", "--help"], "option --help must come before the arguments"),
    ],
)
def test_mistakes_are_one_line_with_status_2(show, argv, message):
    done = show(*argv, status=2)
    assert done.stderr == f"show.sh: {message} (see ./show.sh --help)\n"
    assert done.stdout == ""


LITERAL = [
    "two words", "  edges  ", 'a"b', "it's", "$HOME", "$(touch pwned)", "`touch pwned`",
    "x; touch pwned", "a|b>c&", "*", "~", "a\\nb", "line\nbreak", "x[$(touch pwned)]", "!!", "é",
]  # fmt: skip


@pytest.mark.parametrize("value", LITERAL)
def test_values_are_text_and_never_code(show, tmp_path, value):
    done = show("--model", value, "--bare", value, value)
    assert done.stdout == f"2|true|{value}|8|utils/run.py|{value}|1|<{value}>"
    show("--nj", value, status=2)
    show("--resume", value, status=2)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "name", ["n[j$(touch pwned)]", "nj;touch pwned", "nj\nx[$(touch pwned)]", "$(touch pwned)"]
)
def test_names_are_never_code_either(show, tmp_path, name):
    done = show(f"--{name}", "1", status=2)
    assert done.stderr.startswith(f"show.sh: unknown option --{name}")
    assert not (tmp_path / "pwned").exists()


def test_help_is_the_head_and_the_block(show):
    for option in ("--help", "-h"):
        done = show("--nj", "5", option)
        assert (done.stdout, done.stderr) == (HELP, "")
    done = show("1", "2", "3", "4", "5", status=2)
    assert (done.stdout, done.stderr) == ("", HELP)


def test_die_is_one_line_with_status_1(show):
    assert show("--model", "lost", status=1).stderr == "show.sh: no such model\n"


def test_a_step_finds_the_recipe_s_config_here_or_beside_its_data(run_cli, tmp_path):
    recipe = tmp_path / "x"
    (recipe / "conf").mkdir(parents=True)
    for name in ("steps", "utils", "path.sh"):  # as in each folder of egs/
        assert os.readlink(ROOT / "egs" / "mini" / name) == f"../../{name}"
        (recipe / name).symlink_to(ROOT / name)

    def run(cwd, data, *options):
        words = ("steps/make_egs.sh", *options, data / "train", data / "egs")
        done = run_cli(*words, cwd=cwd, check=False)
        return done.returncode, done.stderr

    missing = "steps/make_egs.sh: no such file {}; give --config egs/<recipe>/conf/train.toml\n"
    assert run(recipe, Path("data")) == (1, missing.format("conf/train.toml"))
    assert run(recipe, Path("data"), "--config", "no") == (1, missing.format("no"))
    (recipe / "conf" / "train.toml").write_text("seed = 1\n")
    for cwd, data in ((recipe, Path("data")), (ROOT, recipe / "data")):
        found = f"steps/make_egs.sh: no such file {data}/train/feats.scp; run stage 3 first\n"
        assert run(cwd, data) == (1, found)


def test_another_checkout_uses_its_own_code(tmp_path):
    """In a shell that has sourced the path.sh of the first."""
    (tmp_path / "path.sh").write_text((ROOT / "path.sh").read_text())
    for name in ("steps", "utils"):
        (tmp_path / name).symlink_to(ROOT / name)
    first = {"SV_ENVIRONMENT": "/first/python3", "SV_ROOT": "/first", "PYTHONPATH": "/first"}
    script = '. ./path.sh; . ./path.sh; echo "$PYTHONPATH $SV_ENVIRONMENT"'
    done = call(["bash", "-c", script], timeout=60, cwd=tmp_path, **first)
    python = shutil.which("python3", path=environment()["PATH"])
    assert done.stdout.split() == [f"{tmp_path}:/first", python], done.stderr


def test_a_recipe_is_looked_for_where_it_is_typed(run_cli, tmp_path):
    words = (ROOT / "run.sh", "--stage", "3", "--stop-stage", "3", "--ngpu", "0", "--egs")
    done = run_cli(*words, ".", cwd=ROOT / "tests" / "egs" / "tiny", check=False)
    assert "no such file tests/egs/tiny/data/train_set" in done.stderr  # the name as from the root
    for given, cwd in (("tests/egs/tiny", tmp_path), ("egs/tiny", ROOT / "tests")):
        done = run_cli(*words, given, cwd=cwd, check=False)
        assert "no such file tests/egs/tiny/data/train_set" in done.stderr
    done = run_cli(*words, ".", cwd=tmp_path, check=False)
    assert done.returncode == 2 and "no recipe in '.'" in done.stderr


SCRIPTS = sorted(
    str(path.relative_to(ROOT))
    for path in [ROOT / "run.sh", *ROOT.glob("steps/*.sh"), *ROOT.glob("utils/*.sh")]
    if re.search(r"^\. .*parse_options\.sh\"?$", path.read_text(), re.MULTILINE)
)


def test_all_scripts_with_options_are_looked_at():
    assert {"run.sh", "steps/make_fbank.sh", "utils/meter.sh", "utils/install.sh"} <= set(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_explains_itself(run_cli, script):
    text = (ROOT / script).read_text()
    block = text.split("# Begin configuration section.\n")[1]
    block = block.split("# End configuration section.\n")[0]
    options = re.findall(r"^([a-z_]\w*)=", block, re.MULTILINE)
    assert len(options) == len([line for line in block.splitlines() if line.strip()])
    done = run_cli(f"./{script}", "--help")
    assert done.stderr == ""
    head, heading, listed = done.stdout.partition("\nOptions (default):\n")
    assert bool(heading) == bool(options)
    shown = [line.split()[0] for line in listed.splitlines()]
    assert shown == [f"--{name.replace('_', '-')}" for name in options]
    assert all(len(line.split()) > 2 for line in listed.splitlines())  # each says what it is
    assert "Usage: " in head and " e.g.: " in head
    done = run_cli(f"./{script}", "--no-such-option", "1", check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"{script}: unknown option --no-such-option")
