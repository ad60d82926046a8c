"""What the tests of a machine's power share: a metered command and fake IPMI tools."""

import json
import os

from sv.energy.journal import read_journal

SYSTEM = "/usr/bin:/bin:/usr/sbin:/sbin"
# As FreeIPMI 1.6 and ipmitool 1.8 lay them out; $w, $t and $s are the power, time and state.
FREEIPMI = """\
Current Power                        : $w Watts
Minimum Power over sampling duration : 48 watts
Maximum Power over sampling duration : 361 watts
Average Power over sampling duration : 157 watts
Time Stamp                           : 10/20/2025 - 10:00:$t
Statistics reporting time period     : 2685198000 milliseconds
Power Measurement                    : $s
"""
IPMITOOL = """

    Instantaneous power reading:                   $w Watts
    Minimum during sampling period:                 10 Watts
    Maximum during sampling period:                550 Watts
    Average power reading over sample period:      240 Watts
    IPMI timestamp:                           Mon Oct 20 10:00:$t 2025
    Sampling period:                          00000300 Seconds.
    Power reading state is:                   $s


"""


def fill(text, power_w=200, stamp="00", state="activated"):
    return text.replace("$w", str(power_w)).replace("$t", stamp).replace("$s", state)


def build_meter(run_cli, tmp_path):
    """Give a function that meters a command with settings, bin/ on the PATH and sys/ as sysfs.

    It gives the channels by id, the sidecar, the samples and the process; None where it failed.
    """
    (tmp_path / "bin").mkdir()
    (tmp_path / "sys").mkdir()

    def run(settings, *command, check=True, env=None):
        (tmp_path / "energy.toml").write_text(f"period_s = 0.05\n{settings}")
        path = f"{tmp_path}/bin:{os.environ['PATH']}"
        done = run_cli(
            "sv.bin.meter", "--stage", "5", "--name", "train", "--dir", tmp_path / "energy",
            "--config", tmp_path / "energy.toml", "--sysfs", tmp_path / "sys", "--", *command,
            check=check, env={"PATH": path, **(env or {})},
        )  # fmt: skip
        if done.returncode != 0:
            return None, None, None, done
        sidecar = json.loads((tmp_path / "energy/05_train.json").read_text())
        channels = {channel["id"]: channel for channel in sidecar["channels"]}
        return channels, sidecar, read_samples(tmp_path), done

    return run


def read_samples(folder):
    lines = read_journal(folder / "energy/05_train.journal.jsonl")
    return [line for line in lines if line["line"] == "sample"]


def write_tool(tmp_path, name, body):
    tool = tmp_path / "bin" / name
    tool.write_text(f"#!/bin/sh\n{body}")
    tool.chmod(0o755)


def print_report(text):
    """Shell: print a report whose time moves with every call; $n counts the calls."""
    moving = fill(text, "$w", "$n", "$s")
    return (
        'f=$(dirname "$0")/calls; echo "$*" >>$f; n=$(wc -l <$f); w=200; s=active\n'
        f"{{}}\ncat <<end\n{moving}end\n"
    )
