"""What run.sh and the steps ask for a line of text, and the walk over several systems.

Usage: python3 -m sv.bin.recipe settings CONF [MODEL ...]      what run.sh needs of conf/
       python3 -m sv.bin.recipe walk [options] DATA EXP -- ./run.sh [options of run.sh]
       python3 -m sv.bin.recipe space [options] DATA_DIR...    of features, before they are made
       python3 -m sv.bin.recipe validate|fix DATA_DIR          a Kaldi data directory
       python3 -m sv.bin.recipe front-end EXP_DIR DATA_DIR    of a network and of features
       python3 -m sv.bin.recipe merge-infos DATA_DIR OUT.json JOB.json ...
"""

import glob
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sv.bin.cli import Parser, positive_float, positive_int, run, true_or_false
from sv.config import read_config
from sv.errors import SvError, UsageError
from sv.files import read_object, read_text, write_json
from sv.model_name import check_model_name, read_network_config

if TYPE_CHECKING:
    from sv.energy.config import EnergyConfig
    from sv.energy.sensors.nvml import Device

DEVICES = "/dev/nvidia[0-9]*"
SUMMED = ("utterances", "frames")  # over the jobs of an extraction


def print_settings(words: Sequence[str]) -> int:
    """Check what the stages to run will read and need; print what run.sh needs of conf/.

    A line each: the models; the backends; whether these need a cohort; whether the untrained
    network is scored; systems at a time; GPUs of a machine for each. Names have spaces between.
    Nothing here loads torch.
    """
    from sv.score.config import BACKENDS, ScoreConfig  # noqa: PLC0415 - of one command, like all such below

    parser = Parser(print_settings.__doc__)
    parser.add_argument("--stage", type=int, help="first stage to run; none: models alone")
    parser.add_argument("--stop-stage", type=int, default=8, help="last stage to run")
    parser.add_argument("--cmd", default="utils/run.py", help="how jobs are run, with its options")
    parser.add_argument("--nj", type=positive_int, default=1, help="CPU threads of a training")
    parser.add_argument("--ngpu", type=int, help="GPUs of a machine (all that are visible)")
    parser.add_argument("--precision", default="fp32", help="of extraction, with spaces between")
    parser.add_argument("--nnodes", type=positive_int, default=1, help="machines of a training")
    parser.add_argument("--max-kwh", type=positive_float, help="energy at which a training ends")
    parser.add_argument("--parallel", type=positive_int, default=1, help="systems at a time")
    parser.add_argument("--country", default="", help="ISO3 code, instead of energy.toml's")
    parser.add_argument("conf", type=Path, help="egs/<recipe>/conf")
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="study: all of models.txt; none: its first",
    )
    args = parser.parse_args(words)
    models = list_models(args.conf, args.models)
    config = read_config(args.conf / "score.toml", ScoreConfig)
    at_once = min(args.parallel, len(models))
    ngpu = 0 if args.stage is None else check_stages(args, config.untrained, at_once)
    print(" ".join(models))
    print(" ".join(name for name in BACKENDS if name in config.backends))  # as in the tables
    print(str(config.needs_cohort).lower())
    print(str(config.untrained).lower())
    print(at_once)
    print(ngpu)
    return 0


def check_stages(args: Namespace, untrained: bool, at_once: int) -> int:
    """Check the settings, jobs and devices of the stages to run, before the first meter starts.

    Args:
        args: Options of `print_settings`.
        untrained: Stage 7 extracts too.
        at_once: Systems at a time.

    Returns:
        GPUs of a machine for a system: those asked for, or its part of all that are visible to
        utils/run.py.

    Raises:
        UsageError: A stage would be refused.
    """
    from sv.data.config import AugmentConfig, FbankConfig  # noqa: PLC0415
    from sv.energy.config import read_energy_config  # noqa: PLC0415
    from sv.energy.factors import check_providers  # noqa: PLC0415
    from sv.train import config as training  # noqa: PLC0415

    def runs(*stages: int) -> bool:
        return any(args.stage <= stage <= args.stop_stage for stage in stages)

    energy = read_energy_config(args.conf / "energy.toml")
    check_providers(replace(energy, country=args.country) if args.country else energy)
    if runs(2):
        read_config(args.conf / "augment.toml", AugmentConfig)
    if runs(3):
        read_config(args.conf / "features.toml", FbankConfig)
    if runs(4, 5):
        train = training.read_train_config(args.conf / "train.toml")
    cmd = args.cmd.split()
    if at_once > 1 and runs(5, 6, 7) and is_program(cmd, "utils/run.py"):
        check_shared(energy, args.conf / "energy.toml", at_once)
    uses_gpus = runs(5, 6) or (runs(7) and untrained)
    if runs(3, 5, 6, 7):
        gpus = args.ngpu or 0 if uses_gpus else 0
        check_jobs(cmd, gpus, args.nj, args.nnodes if runs(5) else 1)
    if not uses_gpus:
        return 0
    visible = list_visible(cmd, must_answer=args.ngpu is None)
    ngpu = choose_ngpu(args.ngpu, visible, cmd, at_once)
    precisions = args.precision.split() if runs(6) else []
    if runs(5):
        training.validate_device(train.precision, ngpu)
        training.validate_processes(train, max(1, ngpu) * args.nnodes)
        precisions.append(train.precision)
    for device in (visible or [])[:ngpu]:
        if device.capability is None:
            continue
        card = device.kind or device.name
        training.validate_kernels(card, device.capability)
        for precision in precisions:
            training.validate_precision(precision, card, device.capability)
    if ngpu == 0 and visible:
        seen = "a GPU is" if len(visible) == 1 else f"{len(visible)} GPUs are"
        print(f"run.sh: --ngpu 0: the CPU is used, though {seen} visible here", file=sys.stderr)
    elif args.ngpu is None and not visible:
        print("run.sh: no GPU is visible here, the CPU is used", file=sys.stderr)
    return ngpu


def list_visible(cmd: Sequence[str], *, must_answer: bool) -> "list[Device] | None":
    """List the GPUs that utils/run.py has for its jobs; None: jobs run by something else.

    Raises:
        UsageError: There are some, and their driver does not answer though it must.
    """
    from sv.energy.boards import VISIBLE  # noqa: PLC0415
    from sv.energy.sensors.nvml import list_devices  # noqa: PLC0415

    if not is_program(cmd, "utils/run.py"):
        return None
    try:
        return list_devices(os.environ.get(VISIBLE))
    except SvError as error:
        if must_answer and (found := sorted(glob.glob(DEVICES))):
            raise UsageError(
                f"this machine has a GPU ({found[0]}), but how many is not known ({error}); mend "
                "that, or give --ngpu"
            ) from error
        return []


def choose_ngpu(
    asked: int | None, visible: "list[Device] | None", cmd: Sequence[str], at_once: int
) -> int:
    """Return the GPUs of a machine for a system: those asked for, or its part of the visible ones.

    Raises:
        UsageError: None is asked for, and jobs run on machines that are not seen from here; or
            there are too few for the systems that run at a time.
    """
    if visible is None and asked is None:
        raise UsageError(
            f"--cmd {cmd[0]}: the GPUs of the machines that run the jobs are not seen from here; "
            "give --ngpu (0: CPU)"
        )
    if visible is None or (asked is not None and at_once == 1):
        return asked or 0
    ngpu = len(visible) // at_once if asked is None else asked
    if ngpu * at_once > len(visible) or (visible and asked is None and ngpu == 0):
        seen = "1 GPU is" if len(visible) == 1 else f"{len(visible) or 'no'} GPUs are"
        raise UsageError(
            f"--parallel {at_once}: {seen} visible here, and each system needs {ngpu or 1}; give a "
            "lower --parallel, or --ngpu (0: CPU)"
        )
    return ngpu


def check_shared(energy: "EnergyConfig", path: Path, at_once: int) -> None:
    """Check that several systems on one machine do not each claim all of its energy.

    Raises:
        UsageError: They would.
    """
    if energy.attribution == "exclusive":
        raise UsageError(
            f"--parallel {at_once}: {path} gives each system all energy of this machine; set "
            'attribution = "cpu_share" in it, or run one after the other'
        )


def is_program(cmd: Sequence[str], name: str) -> bool:
    """Whether a command starts one of our programs, however its path is written."""
    return Path(cmd[0]).resolve() == Path(name).resolve()


def check_jobs(cmd: Sequence[str], gpus: int, threads: int, nodes: int) -> None:
    """Check that utils/run.py or utils/slurm.py could run such a job; of others nothing is known.

    Raises:
        UsageError: It could not.
    """
    from sv.jobs import run, slurm  # noqa: PLC0415

    asked = ["--num-threads", str(threads), "--gpu", str(gpus), "--nodes", str(nodes)]
    for program in (run, slurm):
        if is_program(cmd, program.NAME):
            try:
                program.check([*cmd[1:], *asked, "log", "command"])
            except (ValueError, SvError) as error:
                raise UsageError(f"{program.NAME}: {error}") from error


def list_models(conf: Path, names: Sequence[str]) -> list[str]:
    """Return the model names given to run.sh, each once.

    The word ``study`` stands for all of conf/models.txt (a name a line), no name for its first.

    Raises:
        UsageError: A name is wrong (the message has the right spelling), or the file has none.
    """
    found: list[str] = []
    study = conf / "models.txt"
    for name in names or [""]:
        if name not in ("study", ""):
            found.append(name)
            continue
        lines = (line.split("#")[0].strip() for line in read_text(study).splitlines())
        listed = [line for line in lines if line]
        if not listed:
            raise UsageError(f"{study}: no model name in it")
        found += listed if name else listed[:1]
    network = read_network_config(conf / "train.toml")
    for name in found:
        check_model_name(name, network)
    return list(dict.fromkeys(found))


def walk(words: Sequence[str]) -> int:
    """Run stages 5 to 8 of several systems, and print what became of each.

    Returns:
        0, 1 if a system failed or stopped at its budget, 128 + the signal that stopped the walk.
    """
    from sv.jobs import study  # noqa: PLC0415

    if "--" not in words[:-1]:
        raise UsageError("no command: write run.sh and its options after --")
    at = words.index("--")
    parser = Parser(walk.__doc__)
    parser.add_argument("--stage", type=int, default=5, help="first stage")
    parser.add_argument("--stop-stage", type=int, default=8, help="last stage")
    parser.add_argument("--models", required=True, help="names, with spaces between")
    parser.add_argument("--precisions", default="fp32", help="words, with spaces between")
    parser.add_argument("--backend", default="cosine", help="whose EER the summary shows")
    parser.add_argument("--forecast", type=true_or_false, default=False)
    parser.add_argument("--parallel", type=positive_int, default=1, help="systems at a time")
    parser.add_argument("data", type=Path)
    parser.add_argument("exp", type=Path)
    args = parser.parse_args(words[:at])
    systems = study.Walk(
        words[at + 1 :], args.stage, args.stop_stage, args.exp, parallel=args.parallel
    )
    rows = systems.run(args.models.split(), list(dict.fromkeys(args.precisions.split())))
    if args.forecast:
        print(study.format_forecasts(rows, args.exp))
    else:
        print(study.format_summary(rows, args.data, args.exp, args.backend))
    if systems.stopped_by is not None:
        return 128 + systems.stopped_by
    return int(any(row.status in (study.FAILED, study.STOPPED) for row in rows))


def check_space(words: Sequence[str]) -> int:
    """Say how large the features of data directories will be, and what is free.

    Raises:
        SvError: They do not fit.
    """
    from sv.data.config import FbankConfig  # noqa: PLC0415
    from sv.data.space import require_feature_space  # noqa: PLC0415

    parser = Parser(check_space.__doc__)
    parser.add_argument("--config", type=Path, required=True, help="conf/features.toml")
    parser.add_argument("--nj", type=positive_int, help="archives (as many as are there)")
    parser.add_argument("data_dirs", type=Path, nargs="+", metavar="DATA_DIR", help="with utt2dur")
    args = parser.parse_args(words)
    require_feature_space(args.data_dirs, read_config(args.config, FbankConfig), args.nj)
    return 0


def validate(words: Sequence[str]) -> int:
    """Check a Kaldi data directory: status 1 and what is wrong, a line each, if it is not valid."""
    from sv.kaldi.data_dir import find_problems  # noqa: PLC0415

    parser = Parser(validate.__doc__)
    parser.add_argument("--require", default="", help="tables that must be there, with spaces")
    parser.add_argument("--skip", default="", help="tables that are not looked at")
    parser.add_argument("--no-spk-sort", type=true_or_false, default=False)
    parser.add_argument("data_dir", type=Path)
    args = parser.parse_args(words)
    require, skip = args.require.split(), args.skip.split()
    if not args.data_dir.is_dir():
        problems = [f"no such folder {args.data_dir}"]
    elif problems := find_problems(
        args.data_dir, require=require, skip=skip, spk_sort=not args.no_spk_sort
    ):
        problems = [*problems, "utils/fix_data_dir.sh may repair it"]
    for line in problems:
        print(f"utils/validate_data_dir.sh: {line}", file=sys.stderr)
    if not problems:
        done = f"successfully validated data directory {args.data_dir}"
        print(f"utils/validate_data_dir.sh: {done}", file=sys.stderr)
    return int(bool(problems))


def fix(words: Sequence[str]) -> int:
    """Repair a Kaldi data directory and print what was changed."""
    from sv.kaldi.data_dir import fix_data_dir  # noqa: PLC0415

    parser = Parser(fix.__doc__)
    parser.add_argument("data_dir", type=Path)
    args = parser.parse_args(words)
    for line in fix_data_dir(args.data_dir):
        print(f"utils/fix_data_dir.sh: {line}", file=sys.stderr)
    return 0


def write_inputs(words: Sequence[str]) -> int:
    """Write what each job of stage 3 is made from: <data-dir>/fbank/inputs.JOB."""
    from sv.data import inputs  # noqa: PLC0415

    parser = Parser(write_inputs.__doc__)
    parser.add_argument("--nj", type=positive_int, default=1, help="jobs, at most")
    parser.add_argument(
        "--keep", type=true_or_false, default=True, help="as many jobs as made what is there"
    )
    parser.add_argument("data_dirs", type=Path, nargs="+")
    args = parser.parse_args(words)
    inputs.write_inputs(args.data_dirs, args.nj, keep=args.keep)
    return 0


def check_front_end(words: Sequence[str]) -> int:
    """Check that features are of the front end that a network was trained on.

    Raises:
        SvError: They are not, or a file cannot be read.
    """
    from sv.data.config import FRONT_END, list_front_end_changes, read_front_end  # noqa: PLC0415
    from sv.kaldi.data_dir import read_table  # noqa: PLC0415

    parser = Parser(check_front_end.__doc__)
    parser.add_argument("exp_dir", type=Path, help="has final.pt and model.json")
    parser.add_argument("data_dir", type=Path, help="has feats.scp")
    args = parser.parse_args(words)
    found = read_front_end({str(args.data_dir): read_table(args.data_dir / "feats.scp")})
    info = read_object(path) if (path := args.exp_dir / "model.json").is_file() else {}
    if "features" not in info:  # of a training of before this key
        from sv.train.store import load_checkpoint  # noqa: PLC0415 - it loads torch

        info = load_checkpoint(args.exp_dir / "final.pt")
    known = info.get("features")
    changes = list_front_end_changes(known, found) if known and found else []
    if changes:
        raise SvError(
            f"{args.exp_dir} was trained on another front end than {args.data_dir} has "
            f"({'; '.join(changes)}, {FRONT_END}); set features.toml back and run stages 3 and 4, "
            "or train on these features: stages 4 and 5"
        )
    return 0


def merge_infos(words: Sequence[str]) -> int:
    """Sum the counts of extraction jobs; all but the device must be the same in all of them.

    Raises:
        SvError: It is not: some job's file is of an earlier extraction.
    """
    from sv.kaldi.data_dir import read_table  # noqa: PLC0415

    parser = Parser(merge_infos.__doc__)
    parser.add_argument("data_dir", type=Path, help="what was extracted; has utt2dur")
    parser.add_argument("out", type=Path, help="info.json of all jobs")
    parser.add_argument("infos", type=Path, nargs="+", metavar="JOB.json")
    args = parser.parse_args(words)
    infos = [read_object(path) for path in args.infos]
    common = [{k: v for k, v in info.items() if k not in (*SUMMED, "device")} for info in infos]
    for path, values in zip(args.infos, common, strict=True):
        if values != common[0]:
            raise SvError(
                f"{path} was made differently from {args.infos[0]}; run stage 6 with --resume false"
            )
    sums = {key: sum(info[key] for info in infos) for key in SUMMED}
    audio_s = round(sum(map(float, read_table(args.data_dir / "utt2dur").values())), 3)
    device = ", ".join(sorted({info["device"] for info in infos}))
    facts = {"device": device, **sums, "audio_s": audio_s}
    merged = {"data_set": args.data_dir.name, **common[0], **facts}
    write_json(args.out, merged)
    return 0


COMMANDS = {
    "settings": print_settings,
    "walk": walk,
    "space": check_space,
    "validate": validate,
    "fix": fix,
    "inputs": write_inputs,
    "front-end": check_front_end,
    "merge-infos": merge_infos,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] in (["-h"], ["--help"]):
        print((__doc__ or "").strip())
        return 0
    command = COMMANDS.get(words[0]) if words else None
    if command is None:
        raise UsageError(f"give a command: {', '.join(COMMANDS)}")
    return command(words[1:])


if __name__ == "__main__":
    sys.exit(run("sv.bin.recipe", main))
