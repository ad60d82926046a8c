"""What of a trial list can be scored: the trials whose files are all there."""

import logging
from collections.abc import Container

from local.remarks import Remark
from sv.errors import SvError

Rows = list[tuple[str, str, bool]]


def keep_scorable(
    name: str, rows: Rows, kept: Container[str], *, allow_partial: bool
) -> tuple[Rows, list[Remark]]:
    """Keep the trials whose two sides are in ``kept``.

    Args:
        name: Of the list.
        rows: Its trials.
        kept: Utterances (or enrolment models) that can be used.
        allow_partial: Go on where trials are lost.

    Returns:
        The trials, and a remark if some are lost.

    Raises:
        SvError: Trials are lost and that is not allowed, or none is left.
    """
    usable = [row for row in rows if row[0] in kept and row[1] in kept]
    lost = len(rows) - len(usable)
    if lost and not allow_partial:
        raise SvError(
            f"{name}: {lost} of {len(rows)} trials name files that cannot be used, see above; "
            "give --allow-partial true to go on without them"
        )
    if not usable:
        raise SvError(f"{name}: none of its {len(rows)} trials can be scored")
    logging.info("%s: %d trials", name, len(usable))
    text = f"partial: {lost} of {len(rows)} trials without audio"
    return usable, [Remark(name, text)] if lost else []
