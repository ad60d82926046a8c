"""One attempt of a stage, from its lines in the journal to its figures."""

from itertools import pairwise
from typing import Any

from sv.energy.carbon.factor import compute_co2_g
from sv.energy.counter import CounterSum, Reading, compute_max_gap_s, integrate_power, sum_counter
from sv.energy.journal import Record
from sv.energy.marks import RESUMED
from sv.energy.total import sum_energy
from sv.energy.units import UNITS_PER_J, j_from_count, kwh_from_j, s_from_us, w_from_mw

Fields = dict[str, Any]


def build_attempt(number: int, lines: list[Record]) -> Fields:
    """Build the figures of one attempt.

    Args:
        number: 1 for the first attempt of the stage.
        lines: The head and what follows it in the journal.

    Returns:
        The attempt as the sidecar has it. Without an end line it was interrupted, and the
        figures end with the last sample.
    """
    head = lines[0]
    samples = [line for line in lines if line["line"] == "sample"]
    end = next((line for line in lines if line["line"] == "end"), None)
    start_s, start_awake_s = (samples or lines)[0]["t_s"], (samples or lines)[0]["awake_s"]
    last = samples[-1] if samples else head
    channels = [
        build_channel(spec, _read_points(spec["id"], samples), (start_s, last["t_s"]), len(samples))
        for spec in head["channels"]
    ]
    choose_total(channels)
    energy_j, measured_fraction, reason = sum_energy(channels)
    energy_kwh = None if energy_j is None else kwh_from_j(energy_j)
    marks = [_build_mark(line, start_s) for line in lines if line["line"] == "mark"]
    duration_s = last["t_s"] - start_s
    return {
        "attempt": number,
        "status": end["status"] if end else "interrupted",
        "exit_code": end["exit_code"] if end else None,
        "resumed": any(mark["mark"] == RESUMED for mark in marks),
        "host": head["host"],
        "boot_id": head["boot_id"],
        "started_utc": head["started_utc"],
        "duration_s": duration_s,
        "suspended_s": max(0.0, duration_s - (last["awake_s"] - start_awake_s)),
        "argv": head["argv"],
        "git": head["git"],
        "energy_kwh": energy_kwh,
        "measured_fraction": measured_fraction,
        "reason": reason,
        "co2_g": compute_co2_g(energy_kwh, head["pue"]["value"], head["carbon"]["g_per_kwh"]),
        "carbon": head["carbon"],
        "pue": head["pue"],
        "period_s": head["period_s"],
        "max_gap_s": max(
            (now["t_s"] - before["t_s"] for before, now in pairwise(samples)), default=None
        ),
        "meter_cpu_s": end["meter_cpu_s"] if end else None,
        "channels": channels,
        "marks": marks,
    }


def _build_mark(line: Record, start_s: float) -> Fields:
    t_s = None if line["t_s"] is None else line["t_s"] - start_s
    return {**line["said"], "t_s": t_s, "raw": line["raw"]}


def _read_points(channel_id: str, samples: list[Record]) -> list[Reading]:
    return [
        Reading(sample["t_s"], sample["awake_s"], sample["raw"][channel_id])
        for sample in samples
        if sample["raw"].get(channel_id) is not None
    ]


def build_channel(
    spec: Record, readings: list[Reading], span_s: tuple[float, float], expected: int
) -> Fields:
    """Build a channel's figures from its readings.

    Args:
        spec: The channel as the head of the journal has it.
        readings: Those that succeeded.
        span_s: First and last sample of the attempt, CLOCK_BOOTTIME.
        expected: Samples of the attempt.
    """
    channel = {
        **{key: spec[key] for key in ("id", "boundary", "kind", "method", "source")},
        "energy_j": None,
        "in_total": spec["in_total"],
        "reason": spec["reason"],
        "power_w_per_core": spec["power_w_per_core"],
        "raw": None,
        "samples": {"n": len(readings), "failed": 0, "max_gap_s": None},
    }
    if spec["kind"] == "unavailable":
        return channel
    channel["samples"]["failed"] = expected - len(readings)
    if len(readings) < 2:
        reason = f"{len(readings)} of {expected} readings succeeded, two are needed"
        return {**channel, "kind": "unavailable", "in_total": False, "reason": reason}
    channel["samples"]["max_gap_s"] = compute_max_gap_s(readings, *span_s)
    raw: Fields = {
        "first": readings[0].value,
        "last": readings[-1].value,
        "unit": spec["unit"],
        "max_range": spec["max_range"],
        "wraps": 0,
        "resets": 0,
    }
    if spec["method"] == "counter_delta":
        total = sum_counter(readings, spec["max_range"], UNITS_PER_J[spec["unit"]])
        raw.update(wraps=total.wraps, resets=total.resets)
        channel["energy_j"] = j_from_count(total.count, spec["unit"])
        channel["reason"] = (
            _explain_counter(total, spec, channel["samples"]["max_gap_s"]) or spec["reason"]
        )
    elif spec["method"] == "power_integral":
        channel["energy_j"] = w_from_mw(integrate_power(readings))
    else:
        cpu_s = s_from_us(readings[-1].value - readings[0].value)
        channel["energy_j"] = cpu_s * spec["power_w_per_core"]
    channel["raw"] = raw
    return channel


def _explain_counter(total: CounterSum, spec: Record, max_gap_s: float) -> str | None:
    if total.resets:
        return f"the counter was reset {total.resets} times: the energy is a lower bound"
    if spec["max_range"] is not None and total.max_per_s * max_gap_s > spec["max_range"] / 2:
        return f"{max_gap_s:.0f} s without a reading may hide a wrap: the energy is a lower bound"
    return None


def choose_total(channels: list[Fields]) -> None:
    """Keep the estimate of the CPU in the total only where no package was measured."""
    measured = any(
        channel["boundary"] == "cpu_package" and channel["kind"] == "measured"
        for channel in channels
    )
    for channel in channels:
        if channel["kind"] == "estimated" and measured:
            channel["in_total"] = False
            channel["reason"] = "a measured cpu_package channel is in the total"
