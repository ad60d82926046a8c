"""The rows of Table 2: which test sets are shown, and which precisions of each."""

from dataclasses import dataclass

from sv.errors import UsageError
from sv.report.results import (
    EXTRACT_STAGE,
    PRECISIONS,
    Extraction,
    Results,
    System,
    extract_name,
    is_of_trained,
)


@dataclass(frozen=True)
class Inference:
    """The extraction of a test set by a system at a precision, done or not."""

    system: System
    data_set: str
    precision: str


def list_sets(results: Results) -> list[str]:
    """List the test sets: in the order of the trial lists, then others that anyone extracted."""
    sets = dict.fromkeys(results.trial_sets.values())
    found = {item.data_set for system in results.systems for item in _done(system)}
    return [*sets, *sorted(found - sets.keys())]


def choose_sets(results: Results, sets: tuple[str, ...] | None) -> list[str]:
    """Give ``sets`` in the order of the trial lists; None gives all.

    Raises:
        UsageError: One of ``sets`` is none that the recipe has.
    """
    known = list_sets(results)
    for name in sets or ():
        if name not in known:
            raise UsageError(f"no test set '{name}' (known: {', '.join(known) or 'none'})")
    return [name for name in known if sets is None or name in sets]


def prefer_sets(results: Results, preferred: list[str]) -> tuple[str, ...] | None:
    """Give those of ``preferred`` that some system has extracted; without any, None for all."""
    found = {item.data_set for system in results.systems for item in _done(system)}
    return tuple(name for name in preferred if name in found) or None


def list_inferences(results: Results, data_set: str) -> list[Inference]:
    """List the rows of a test set: by precision, then by system in the order of Table 1.

    A precision that any system has tried has a row for every system; fp32 always has. So a system
    that could not be extracted at one precision has a row that says why.
    """
    tried = {"fp32"}
    for system in results.systems:
        tried |= {item.precision for item in _done(system) if item.data_set == data_set}
        tried |= {
            score.precision
            for score in system.scores
            if score.backend == "cosine" and not score.untrained and score.data_set == data_set
        }
        # A stage that failed left nothing but its energy.
        names = {stage.name for stage in system.stages if stage.number == EXTRACT_STAGE}
        tried |= {p for p in PRECISIONS if f"extract_{extract_name(data_set, p)}" in names}
    ordered = [*PRECISIONS, *sorted(tried - set(PRECISIONS))]
    return [
        Inference(system, data_set, precision)
        for precision in ordered
        if precision in tried
        for system in results.systems
    ]


def lists_of(results: Results, data_set: str) -> tuple[str, ...]:
    """Give the trial lists of a test set that anyone has scored, else all of them."""
    lists = [name for name, of_set in results.trial_sets.items() if of_set == data_set]
    scores = [score for system in results.systems for score in system.scores]
    scored = {s.trials_name for s in scores if s.backend == "cosine" and not s.untrained}
    return tuple([name for name in lists if name in scored] or lists)


def _done(system: System) -> list[Extraction]:
    return [item for item in system.extractions if is_of_trained(item)]
