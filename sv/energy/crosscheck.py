"""Ratios that tell a reader whether two channels that should agree do."""

from typing import Any

from sv.energy.total import MEASURED_KINDS
from sv.energy.units import kwh_from_j

Fields = dict[str, Any]


def compute_crosschecks(channels: list[Fields]) -> list[Fields]:
    """Compare what is known twice.

    - Two methods on one source, a GPU's energy counter and the integral of its power: both have
      the same boundary and the same last part of the id (the board's).
    - The outermost parts of a machine against the machine.
    - The estimate of the processor against what was measured.

    Returns:
        ``a``, ``b``, the ratio a / b, and for parts of a machine the rest of it, b - a, which is
        shown and never summed; ``host`` where the channels have one.
    """
    by_host: dict[str | None, list[Fields]] = {}
    for channel in channels:
        by_host.setdefault(channel.get("host"), []).append(channel)
    return [
        check if host is None else {**check, "host": host}
        for host, of_host in by_host.items()
        for check in _compare_channels(of_host)
    ]


def _compare_channels(channels: list[Fields]) -> list[Fields]:
    known = [ch for ch in channels if ch["energy_j"] is not None]
    measured = [ch for ch in known if ch["kind"] in MEASURED_KINDS]
    checks = []
    for counter in (ch for ch in measured if ch["method"] == "counter_delta"):
        for integral in (ch for ch in measured if ch["method"] == "power_integral"):
            same_source = _get_source(counter) == _get_source(integral)
            if same_source and counter["boundary"] == integral["boundary"]:
                checks.append(_compare([counter], [integral]))
    for node in (ch for ch in measured if ch["boundary"] == "node"):
        inside = [ch for ch in measured if node["id"] in ch["contained_in"]]
        inside = [ch for ch in inside if ch["boundary"] != "psys"]
        ids = {ch["id"] for ch in inside}
        parts = [ch for ch in inside if not ids & set(ch["contained_in"])]
        checked = {check["b"] for check in checks}
        parts = [ch for ch in parts if ch["id"] not in checked]
        if parts:
            checks.append({**_compare(parts, [node]), "rest_kwh": _get_rest_kwh(parts, node)})
    packages = [ch for ch in measured if ch["boundary"] == "cpu_package"]
    estimates = [ch for ch in known if ch["method"] == "cpu_time_x_power"]
    if packages and estimates:
        checks.append(_compare(estimates, packages))
    return checks


def _get_source(channel: Fields) -> str:
    return channel["id"].rsplit(".", 1)[-1]


def _sum_j(channels: list[Fields]) -> float:
    return sum(channel["energy_j"] for channel in channels)


def _compare(a: list[Fields], b: list[Fields]) -> Fields:
    b_j = _sum_j(b)
    return {
        "a": " + ".join(channel["id"] for channel in a),
        "b": " + ".join(channel["id"] for channel in b),
        "ratio": _sum_j(a) / b_j if b_j > 0 else None,
    }


def _get_rest_kwh(parts: list[Fields], node: Fields) -> float:
    return kwh_from_j(node["energy_j"] - _sum_j(parts))
