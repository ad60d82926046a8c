"""The front end that a trained network expects, read from its final.pt without torch.

final.pt is a zip archive in which ``data.pkl`` pickles everything but the weights. Here nothing
that the pickle names is imported or called: whatever is no plain value becomes an empty stand-in.
"""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

from sv.errors import SvError

# What unpickling raises on bytes that are no pickle, beside what opening and finding them does.
_BROKEN = (
    OSError, zipfile.BadZipFile, StopIteration, pickle.UnpicklingError, EOFError, AttributeError,
    IndexError, KeyError, TypeError, ValueError,
)  # fmt: skip


class _StandIn:
    """What a pickle wants made by a function or class that is not to be run."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        return OrderedDict if (module, name) == ("collections", "OrderedDict") else _StandIn

    def persistent_load(self, _: Any) -> None:
        return None  # the numbers of a tensor


def read_front_end(path: Path) -> dict[str, Any] | None:
    """Read the resolved conf/features.toml of a final.pt; None where it has none.

    Raises:
        SvError: The file is no final.pt as torch.save writes it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(name) as file:
                state = _PlainUnpickler(file).load()
    except _BROKEN as error:
        raise SvError(f"{path}: cannot be read ({error or 'no data.pkl'}): train again") from error
    features = state.get("features") if isinstance(state, dict) else None
    return features if isinstance(features, dict) else None
