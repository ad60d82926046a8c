"""Which front end made the features of an archive: a JSON file beside it, from stage 3 on.

Stage 4 puts it into egs.json and stage 5 into the model, so that a model knows how to listen.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sv.errors import SvError
from sv.files import read_json, write_json

NAME = "features.json"


def write_front_end(ark: Path, config: Mapping[str, Any]) -> None:
    """Write the resolved conf/features.toml beside an archive; jobs write the same."""
    write_json(ark.parent / NAME, dict(config))


def read_front_end(tables: Mapping[str, Mapping[str, str]]) -> dict[str, Any] | None:
    """Give the front end of several feats.scp, judged by the first archive of each.

    Args:
        tables: Name of each (for the message) and utterance to ``ark:offset``.

    Returns:
        The resolved config, or None where none stands beside the archives (features that other
        programs made).

    Raises:
        SvError: Two of them were made by different front ends.
    """
    found: dict[str, dict[str, Any] | None] = {}
    for name, table in tables.items():
        path = Path(next(iter(table.values())).rpartition(":")[0]).parent / NAME
        found[name] = read_json(path) if path.is_file() else None
    first, *others = found
    for other in others:
        if found[other] != found[first]:
            raise SvError(f"features of '{first}' and '{other}' differ in {NAME}; do stage 3 again")
    return found[first]
