"""What depth, width and stage distribution bring, where there are systems to compare."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

from sv.errors import UsageError
from sv.model_name import ModelName, format_model_name, parse_model_name
from sv.report.advice.candidates import Candidate
from sv.report.noise import find_ties, subtract
from sv.report.records import family_of
from sv.report.tables.cells import format_significant

_LEAST_MEMBERS = 2
_SORTED: dict[str, Callable[[ModelName], Decimal | int]] = {
    "depth": lambda model: model.depth,
    "width": lambda model: model.width,
}
_TITLES = {"depth": "depth", "width": "width", "stage": "stage distribution"}


def advise_structure(candidates: tuple[Candidate, ...]) -> tuple[list[str], list[str]]:
    """Compare the systems of each group of the study.

    Returns:
        Sentences, and why there are none on some group.
    """
    lines, withheld = [], []
    for family, title in _TITLES.items():
        groups: dict[object, list[Candidate]] = {}
        for member in (c for c in candidates if family_of(c.name) == family):
            groups.setdefault(_alike(family, _model(member)), []).append(member)
        large = [members for members in groups.values() if len(members) >= _LEAST_MEMBERS]
        for members in large:
            compared = [*members, *_find_baseline(family, members[0], candidates)]
            describe = _describe_stages if family == "stage" else _describe_steps
            lines.append(describe(family, compared))
        if not large:
            count = max((len(members) for members in groups.values()), default=0)
            withheld.append(
                f"on {title}: {count} system{'s' * (count != 1)} that differ in it alone, "
                f"{_LEAST_MEMBERS} are needed"
            )
    return lines, withheld


def _alike(family: str, model: ModelName) -> object:
    """Give what the systems of a group must have in common, so that they differ in one thing."""
    if family == "width":
        return model.depth, model.blocks
    return model.depth if family == "stage" else None


def _find_baseline(
    family: str, member: Candidate, candidates: tuple[Candidate, ...]
) -> list[Candidate]:
    """Find the system of another family that belongs to a group: full width, default stages."""
    if family == "depth":
        return []
    model = _model(member)
    name = format_model_name(replace(model, width=Decimal(1)))
    if family == "stage":
        name = f"resnet{model.depth}_d"
    return [candidate for candidate in candidates if candidate.name == name]


def _model(candidate: Candidate) -> ModelName:
    try:
        return parse_model_name(candidate.name)
    except UsageError as error:  # family_of gave it a family of the grammar
        raise ValueError(candidate.name) from error


def _describe_steps(family: str, members: list[Candidate]) -> str:
    """Go from the smallest to the largest, step by step."""
    order = sorted(members, key=lambda member: (_SORTED[family](_model(member)), member.name))
    steps = []
    for small, large in zip(order, order[1:], strict=False):
        sure = "within noise" if _is_tied(large, small) else "beyond noise"
        change = large.eer.value - small.eer.value
        ratio = format_significant(large.kwh / small.kwh, 2)
        steps.append(
            f"{small.name} to {large.name}: EER {change:+.2f} points, {sure}, for {ratio} times "
            "the energy"
        )
    return f"By {_TITLES[family]}, from small to large: {'; '.join(steps)}."


def _describe_stages(family: str, members: list[Candidate]) -> str:
    """Name the best, those as good within noise, the cheapest of these, and the worse ones."""
    measured = {member.name: member.eer for member in members}
    best = min(members, key=lambda member: (member.eer.value, member.kwh))
    ties = find_ties(measured, best.name)
    as_good = [member for member in members if member.name in {*ties, best.name}]
    cheapest = min(as_good, key=lambda member: member.kwh)
    worse = [member.name for member in members if member not in as_good]
    text = f"By {_TITLES[family]}, {best.name} has the lowest EER ({best.eer.value:.2f} %)"
    text += f", {_list(ties)} within noise of it" if ties else ", no other within noise of it"
    text += f"; of these {cheapest.name} takes the least energy" if ties else ""
    text += f" ({format_significant(cheapest.kwh)} kWh)"
    return f"{text}; beyond noise worse: {_list(worse)}." if worse else f"{text}."


def _is_tied(a: Candidate, b: Candidate) -> bool:
    difference = subtract(a.eer, b.eer)
    interval = difference.interval if difference else None
    assert interval is not None  # candidates are of the same draws, and have intervals
    return interval[0] <= 0 <= interval[1]


def _list(names: list[str] | set[str]) -> str:
    return ", ".join(sorted(names))
