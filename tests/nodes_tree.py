"""A stage on several machines, its journals written as their meters would."""

import contextlib
import io

from metered import ESTIMATE, PACKAGE, Runner, end, head, sample, write_journal

from sv.bin import meter
from sv.energy.samples import StageJournals, split_attempts
from sv.energy.sidecar import rebuild, write_sidecar

J_PER_KWH = 3.6e6


def at(seconds):
    """Give the time of the world at a second of the tests' machines."""
    return f"2026-01-01T00:{int(seconds) // 60:02d}:{seconds % 60:06.3f}Z"


def lines(host, first, last, *channels, boot=None, ended=True, marks=(), config=None, **watts):
    """Give an attempt from ``first`` to ``last`` seconds, of steady powers from second 0 on.

    ``boot`` is the machine, by default one of its own for each host; ``busy`` is the part of its
    processor time that is the job's.
    """
    busy = watts.pop("busy", 1.0)
    channels = channels or (PACKAGE, ESTIMATE)
    made = [
        head(
            *channels, host=host, boot_id=boot or f"boot of {host}", started_utc=at(first),
            t_s=float(first), config=config or {},
        )
    ]  # fmt: skip
    for t_s in range(first, last + 1):
        raw = {}
        for channel in channels:
            name = channel["id"].replace(".", "__")
            watt = watts.get(name, 100)
            if channel["method"] == "power_integral":
                raw[name] = watt * (1 if channel["unit"] == "W" else 1000)
            elif channel["unit"] == "us":  # a core that is busy all the time has 6 W
                raw[name] = (t_s - first) * 10**6 * watts.get("cores", 1)
            else:
                raw[name] = t_s * watt * 10**6
        cores = watts.get("cores", 1)
        usage = {"node_cpu_us": round(t_s * 10**6 * cores / busy)}
        made.append(sample(float(t_s), usage=usage if (t_s - first) % 10 == 0 else None, **raw))
    made += marks
    return [*made, end(float(last))] if ended else made


def write_stage(folder, own, nodes=(), expected=None, attempt=1):
    """Write the journals of a stage, make its sidecar, check it, and give it."""
    runner = Runner(folder)
    if own:
        write_journal(runner.journal, *own)
    nodes = dict(nodes)
    where = runner.folder / "05_train.nodes" / str(attempt)
    for label, node in nodes.items():
        write_journal(where / f"{label}.journal.jsonl", *node)
    write_journal(
        where / "expected.jsonl", {"labels": list(nodes if expected is None else expected)}
    )
    return build(runner), runner


def build(runner):
    """Write a stage's sidecar, check it as --check does, and give it."""
    path = runner.folder / "05_train.json"
    write_sidecar(runner.journal)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        assert meter.run_tool(["--check", str(path)]) == 0, said.getvalue()
    return runner.sidecar()


def join(own, nodes):
    """Give the attempt of a stage's journals, whatever --check would say of it."""
    starts = {label: split_attempts(node)[0] for label, node in nodes.items()}
    return rebuild(own, {1: StageJournals(tuple(nodes), starts)}).attempts[0]


def joules(sidecar, key="energy_kwh"):
    return getattr(sidecar, key) * J_PER_KWH
