"""A Slurm job's totals as CEEMS has them, with what our own meter says of the same job.

CEEMS apportions a node's power to its jobs, times the PUE in the rules that it comes with; our
meter reads counters of the parts. Both figures are kept, with their ratio; an imported one is never
added to ours.

Its operator may name several metrics of one energy (rapl_total, ipmi_total) instead of a total:
one is taken for the total, of several none is.
Source: CEEMS 0.10, GET /api/v1/units, etc/prometheus/rules, ceems_api_server.yml, 2026-11.
"""

import base64
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sv.energy.config import URL
from sv.energy.record import Attempt, Meter, read_record
from sv.energy.units import format_utc, kwh_from_j, parse_utc
from sv.energy.web import FetchError, fetch_json, is_private
from sv.errors import SvError, UsageError
from sv.files import read_json

SCHEMA = "energy-imported/1"
MS_PER_S = 1_000
LAG_S = 20 * 60.0  # its data base is written every 15 minutes, after a scrape: CEEMS 0.10 docs
EDGE_S = 2.0  # Slurm and our meter read different clocks
GPU = "gpu_board"
GPUS = {GPU, "gpu_module"}
WHOLE = {"node", "gpu_module"}  # boundaries that hold processor and boards
PARTS = ("cpu_kwh", "gpu_kwh", "energy_kwh")
BOUNDARY = (
    "cpu: the host's power apportioned to the job; gpu: its boards; both times the site's PUE, "
    "where the rules are those that CEEMS comes with"
)
RATIO_MEANING = (
    "ours / CEEMS. CEEMS's stock rules multiply by the site's PUE and ours has none in it: at 1.2 "
    "equal meters give 0.83. Its cpu figure is a share of the whole host, ours of the parts read"
)
Fields = dict[str, Any]
Spans = Sequence[Sequence[float | None]]  # Unix time of begin and end of each run of the job


@dataclass(frozen=True)
class Job:
    """Which job, and as whom it is asked for.

    Attributes:
        url: Address of the API server, without ``/api``.
        cluster: Identifier of the cluster there.
        job: Slurm's job id.
        user: User that the server is to answer.
        user_header: Header in which it expects the user.
        basic_auth: ``user:password`` of the server; written nowhere.
    """

    url: str
    cluster: str
    job: str
    user: str
    user_header: str = "X-Grafana-User"
    basic_auth: str | None = None


def import_job(job: Job, sidecars: Sequence[Path], now_s: float) -> Fields:
    """Ask for a job's totals and return them with our own energy of the same job.

    Args:
        job: The job.
        sidecars: Ours; attempts that lie outside the job's time are left out, and counted. Of an
            attempt with meters on other machines it is those that count, each by its own time.
        now_s: Unix time.

    Returns:
        What ``ceems.json`` holds: ``imported`` totals, ``ours``, ``ratio`` (ours / CEEMS), and
        ``reasons``: why one of the figures is null, or is not what its name says.

    Raises:
        SvError: The server does not answer, knows no such job, or a sidecar cannot be read.
        UsageError: The address has a password or a query in it, or a password goes there in clear.
    """
    if not URL.fullmatch(job.url):
        raise UsageError(
            "--url must be http(s)://host/path with no user, no password, no query: it is written"
        )
    if job.basic_auth and not is_private(job.url):
        raise UsageError("--url must begin with https: a password goes with the question")
    units = _fetch_units(job)
    stamps = [(unit.get("started_at_ts"), unit.get("ended_at_ts")) for unit in units]
    spans = [
        tuple(ms / MS_PER_S if _is_figure(ms) and ms > 0 else None for ms in span)
        for span in stamps
    ]
    reasons: dict[str, str] = {}
    ours = _sum_ours(sidecars, spans)
    imported = _sum_units(units, spans, now_s, reasons, has_gpu=ours["has_gpu"])
    ratio = {key: _divide(ours, imported, key, reasons) for key in PARTS}
    return {
        "schema": SCHEMA,
        "kind": "imported",
        "source": {
            "system": "CEEMS",
            "url": job.url,
            "cluster": job.cluster,
            "job": job.job,
            "retrieved_utc": format_utc(now_s),
        },
        "imported": imported,
        "ours": ours,
        "ratio": ratio,
        "ratio_meaning": RATIO_MEANING,
        "ratio_reason": _explain_ratio(ours, imported, reasons),
        "reasons": reasons,
    }


def validate_out(out: Path) -> None:
    """Refuse to write over what is no import: the file to write is named last.

    Raises:
        UsageError: There is a sidecar, or any other file.
    """
    if out.exists():
        try:
            record = read_json(out)
        except SvError:
            record = None
        if not isinstance(record, dict) or record.get("schema") != SCHEMA:
            raise UsageError(f"OUT.json is named last, and {out} is there and is no {SCHEMA} file")


def _fetch_units(job: Job) -> list[Fields]:
    headers, secrets = {job.user_header: job.user}, {}
    if job.basic_auth:
        word = base64.b64encode(job.basic_auth.encode()).decode("ascii")
        secrets["Authorization"] = f"Basic {word}"
    query = {"cluster_id": job.cluster, "uuid": job.job}
    try:
        answer = fetch_json(f"{job.url.rstrip('/')}/api/v1/units", query, headers, secrets=secrets)
        if not isinstance(answer, dict) or answer.get("status") != "success":
            raise FetchError("the server does not say success")
        units = answer.get("data")
        if units is not None and not isinstance(units, list):
            raise FetchError("no list of jobs in the answer")
    except FetchError as error:
        raise SvError(f"CEEMS at {job.url}: {error}") from error
    # The server may answer with more than was asked for; another job's energy is not this one's.
    found = [unit for unit in units or [] if isinstance(unit, dict) and unit.get("uuid") == job.job]
    if not found:
        raise SvError(
            f"CEEMS at {job.url} has no job {job.job} of user {job.user} in cluster {job.cluster}; "
            "a job appears there up to 15 minutes after its start"
        )
    return found


def _sum_units(
    units: list[Fields], spans: Spans, now_s: float, reasons: dict[str, str], *, has_gpu: bool
) -> Fields:
    """Add up the runs of a job: one that was requeued has several under one id.

    Without a figure of its boards the total of a job that used some (``has_gpu``) is not known.
    """
    emissions: Counter[str] = Counter()
    for unit in units:
        for part in ("cpu", "gpu"):
            for key, value in _read_figures(unit, f"total_{part}_emissions_gms").items():
                emissions[key.removesuffix("_total")] += float(value)
    cpu_by, cpu = _sum_metrics(units, "cpu", reasons)
    gpu_by, gpu = _sum_metrics(units, "gpu", reasons)
    # A job may have no board, but none has no processor; boards that are not known are not 0.
    lacks_gpu = gpu is None and (has_gpu or bool(gpu_by))
    energy = None if cpu is None or lacks_gpu else cpu + (gpu or 0.0)
    if energy is None:
        missing = "cpu_kwh" if cpu is None else "gpu_kwh"
        reasons["imported.energy_kwh"] = f"{missing}: {reasons[f'imported.{missing}']}"
    return {
        "energy_kwh": energy,
        "cpu_kwh": cpu,
        "gpu_kwh": gpu,
        "by_metric_kwh": {"cpu": cpu_by, "gpu": gpu_by},
        "co2_g": dict(sorted(emissions.items())),
        "boundary": BOUNDARY,
        "runs": len(units),
        "state": units[-1].get("state"),
        "spans": [[None if at_s is None else format_utc(at_s) for at_s in span] for span in spans],
        # A running job, and one that has just ended, will have more.
        "final": all(end_s is not None and now_s - end_s > LAG_S for _, end_s in spans),
    }


def _sum_metrics(
    units: list[Fields], part: str, reasons: dict[str, str]
) -> tuple[dict[str, float], float | None]:
    """Add up each metric of the energy of a part over the runs, and choose the one that counts."""
    key = f"total_{part}_energy_usage_kwh"
    runs = [_read_figures(unit, key) for unit in units]
    names = sorted({name for run in runs for name in run})
    by_metric = {name: sum(float(run.get(name, 0.0)) for run in runs) for name in names}
    name = "total" if "total" in names else names[0] if len(names) == 1 else None
    lacking = sum(name not in run for run in runs)
    where = f"imported.{part}_kwh"
    if not names:
        reasons[where] = f"CEEMS gives no {key}"
    elif name is None:
        reasons[where] = f"CEEMS gives {', '.join(names)} and no total: they may be one energy"
    elif lacking:
        reasons[where] = f"without {lacking} of {len(runs)} runs, which have no {name}"
    elif name != "total":
        reasons[where] = f"it is {name}: CEEMS gives no total"
    return by_metric, None if name is None else by_metric[name]


def _sum_ours(sidecars: Sequence[Path], spans: Spans) -> Fields:
    """Add up the energy of the attempts of our sidecars that lie in one of the job's runs."""
    by_boundary: Counter[str] = Counter()
    energy_kwh, measured_kwh, has_gpu = None, 0.0, False
    used, left_out = [], []
    for name, attempt, part in (found for path in sidecars for found in _list_parts(path)):
        inside = _is_inside(part, spans)
        if not inside or part.energy_kwh is None:
            why = "its energy is not known" if inside else "not in the time of the job"
            left_out.append(f"{name}: {why}")
            continue
        used.append(name)
        energy_kwh = (energy_kwh or 0.0) + part.energy_kwh
        measured_kwh += part.energy_kwh * (attempt.measured_fraction or 0.0)
        # Also of a board that is inside of a machine's power and not summed.
        here = [ch for ch in attempt.channels if part is attempt or ch.host == part.host]
        has_gpu = has_gpu or any(ch.boundary in GPUS and ch.energy_j for ch in here)
        if part is not attempt:
            by_boundary[" + ".join(attempt.boundary)] += part.energy_kwh
            continue
        for channel in attempt.channels:
            if channel.in_total and channel.energy_j is not None:
                by_boundary[channel.boundary] += kwh_from_j(channel.energy_j)
    # What holds both, and a share of a machine, cannot be split into the two.
    is_split = _is_divided(by_boundary) and math.isclose(
        by_boundary.total(), energy_kwh or 0.0, rel_tol=1e-6
    )
    rest = [kwh for boundary, kwh in by_boundary.items() if boundary != GPU]
    return {
        "energy_kwh": energy_kwh,
        "cpu_kwh": sum(rest) if rest and is_split else None,
        "gpu_kwh": by_boundary.get(GPU) if is_split else None,
        "has_gpu": has_gpu,
        "measured_fraction": measured_kwh / energy_kwh if energy_kwh else None,
        "by_boundary_kwh": dict(sorted(by_boundary.items())),
        "attempts": used,
        "left_out": left_out,
    }


def _is_divided(by_boundary: Mapping[str, float]) -> bool:
    return WHOLE.isdisjoint(by_boundary) and not any(" + " in key for key in by_boundary)


def _list_parts(path: Path) -> Iterator[tuple[str, Attempt, Attempt | Meter]]:
    """List the attempts of a sidecar by name; of one with several meters, these."""
    for attempt in read_record(path).attempts:
        name = f"{path.name}, attempt {attempt.attempt}"
        if len(attempt.meters) == 1:
            yield name, attempt, attempt
            continue
        for meter in attempt.meters:
            # The stage's own is machine 0 where run.sh is in the job; a login node's began earlier.
            if meter.started_utc is not None:
                which = f"{meter.label}, start {meter.start}" if meter.label else "its own meter"
                yield f"{name}, {which}", attempt, meter


def _is_inside(part: Attempt | Meter, spans: Spans) -> bool:
    start_s = parse_utc(part.started_utc or "")
    end_s = start_s + (part.duration_s or 0.0)
    return any(
        begin_s is not None
        and start_s >= begin_s - EDGE_S
        and (stop_s is None or end_s <= stop_s + EDGE_S)
        for begin_s, stop_s in spans
    )


def _read_figures(unit: Fields, key: str) -> dict[str, float]:
    """Return the figures by name, without what is no finite number from 0 on."""
    values = unit.get(key)
    if not isinstance(values, dict):
        return {}
    return {name: value for name, value in values.items() if _is_figure(value)}


def _is_figure(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value < math.inf


def _divide(ours: Fields, imported: Fields, key: str, reasons: dict[str, str]) -> float | None:
    """Return ours / CEEMS; None, with a reason, where one is not known or CEEMS's is 0."""
    if ours[key] is None:
        why = "our figure is not divided into processor and boards"
        if not ours["attempts"]:
            why = "no attempt of ours lies in the time of the job"
        elif _is_divided(ours["by_boundary_kwh"]):
            why = f"our figure has no {'GPU boards' if key == 'gpu_kwh' else 'processor'}"
        reasons[f"ours.{key}"] = why
    elif imported[key]:
        return ours[key] / imported[key]
    elif imported[key] is None:
        why = reasons[f"imported.{key}"]
    else:
        why = "CEEMS says 0"
    reasons[f"ratio.{key}"] = why
    return None


def _explain_ratio(ours: Fields, imported: Fields, reasons: Mapping[str, str]) -> str | None:
    """Say why there is no ratio of the totals, or where it does not compare like with like."""
    # A job without boards needs no word.
    parts = ["cpu", "gpu"] if ours["has_gpu"] or imported["by_metric_kwh"]["gpu"] else ["cpu"]
    doubts = {f"{part}_kwh": reasons.get(f"imported.{part}_kwh") for part in parts}
    whys = [f"{key}: {why}" for key, why in doubts.items() if why is not None]
    if "ratio.energy_kwh" in reasons and (not whys or not ours["attempts"]):
        whys = [reasons["ratio.energy_kwh"]]
    is_divided = ours["attempts"] and _is_divided(ours["by_boundary_kwh"])
    if is_divided and imported["gpu_kwh"] and GPU not in ours["by_boundary_kwh"]:
        whys.append("CEEMS counts GPUs that our figure lacks")
    if ours["has_gpu"] and not imported["gpu_kwh"]:
        whys.append("our figure has GPUs that CEEMS lacks")
    return "; ".join(whys) or None
