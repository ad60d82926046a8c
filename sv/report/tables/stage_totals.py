"""Sums of stages: never of figures that cover different parts of the machines."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from sv.report.stage_energy import Carbon, StageEnergy
from sv.report.tables.evidence import Labelled, describe_covered, list_some


def sum_by_cover(labelled: Sequence[Labelled]) -> dict[str, StageEnergy]:
    """Sum stages apart by what their energy covers (`sv.report.tables.evidence.describe_covered`).

    Args:
        labelled: At least one stage. Those without an energy are in no sum; every sum then says
            so in its ``reason``.

    Returns:
        By what is covered, a `StageEnergy` of the sums. ``attempts`` counts all attempts,
        ``channels`` are those of all stages. A sum is None where a part of it is not known;
        uncertainties are added linearly, as those of channels are. Without any energy it is one
        sum without an energy, by the name "".
    """
    known = [item for item in labelled if item[1].energy_kwh is not None]
    unknown = [label for label, stage in labelled if stage.energy_kwh is None]
    if not known:
        return {"": replace(_sum(labelled), reason=f"not known of {list_some(unknown)}")}
    groups: dict[str, list[Labelled]] = {}
    for label, stage in known:
        groups.setdefault(describe_covered(stage), []).append((label, stage))
    sums = {}
    for covered, group in groups.items():
        part = [label for label, stage in group if stage.reason or stage.status != "complete"]
        why = [f"with {list_some(part)}, which is not complete"] if part else []
        if unknown:
            why.append(f"without {list_some(unknown)}, whose energy is not known")
        sums[covered] = replace(_sum(group), reason="; ".join(why))
    return sums


def _sum(labelled: Sequence[Labelled]) -> StageEnergy:
    stages = [stage for _, stage in labelled]
    scopes = {(stage.carbon.scope, stage.carbon.basis) for stage in stages}
    why_no_co2 = _lacking(labelled, lambda stage: stage.co2_g)
    if len(scopes) > 1:
        why_no_co2 = "grams of different scope or basis are not summed"
    return StageEnergy(
        path=Path("the sum"),
        stage=stages[0].stage,
        name="total",
        model=None,
        status="complete",  # what did not complete is in the reason
        exit_code=None,
        host="",
        started_utc="",
        duration_s=_add(stage.duration_s for stage in stages),
        energy_kwh=_add(stage.energy_kwh for stage in stages),
        energy_all_kwh=_add(stage.energy_all_kwh for stage in stages),
        measured_fraction=_mean_fraction(stages),
        co2_g=None if why_no_co2 else _add(stage.co2_g for stage in stages),
        carbon=Carbon(*[""] * 6, g_per_kwh=None, source="", reason=why_no_co2),
        pue_value=None,
        pue_source="",
        channels=tuple(channel for stage in stages for channel in stage.channels),
        attempts=sum(stage.attempts for stage in stages),
        reason="",
        attribution=stages[0].attribution,
        uncertainty_kwh=_add(stage.uncertainty_kwh for stage in stages),
        uncertainty_reason=_lacking(labelled, lambda stage: stage.uncertainty_kwh),
        energy_above_idle_kwh=_add(stage.energy_above_idle_kwh for stage in stages),
        above_idle_reason=_lacking(labelled, lambda stage: stage.energy_above_idle_kwh),
        co2_all_g=None if len(scopes) > 1 else _add(stage.co2_all_g for stage in stages),
    )


def _add(values: Iterable[float | None]) -> float | None:
    found = list(values)
    known = [value for value in found if value is not None]
    return sum(known) if len(known) == len(found) else None


def _mean_fraction(stages: Sequence[StageEnergy]) -> float | None:
    """Give the measured part of a sum of energies; None if one is not known."""
    whole = measured = 0.0
    for stage in stages:
        if stage.energy_kwh is None or stage.measured_fraction is None:
            return None
        whole += stage.energy_kwh
        measured += stage.energy_kwh * stage.measured_fraction
    return measured / whole if whole else None


def _lacking(labelled: Sequence[Labelled], take: Callable[[StageEnergy], float | None]) -> str:
    lacking = [label for label, stage in labelled if take(stage) is None]
    return f"not known of {list_some(lacking)}" if lacking else ""
