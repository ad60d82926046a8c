"""Which GPU boards CUDA_VISIBLE_DEVICES leaves to a command, read as CUDA reads it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Board:
    """A GPU board: its UUID, its NVML handle once known, and whether it is split (MIG)."""

    uuid: str
    handle: Any = None
    mig: bool = False


def choose_boards(
    visible: str | None, uuids: list[str], find_mig_parent: Callable[[str], str | None]
) -> list[Board]:
    """Choose boards by a list of indices, GPU-<uuid prefix> and MIG-<uuid>.

    Args:
        visible: Value of CUDA_VISIBLE_DEVICES; None: unset, all boards; "" or "-1": none.
        uuids: UUIDs of the boards (``GPU-...``) in NVML's order.
        find_mig_parent: Gives the board's UUID for a MIG device's, None if there is none.

    Returns:
        Each board once, in the order of the list. As in CUDA, an item that names nothing hides
        itself and all items after it.
    """
    if visible is None:
        return [Board(uuid) for uuid in uuids]
    boards: dict[str, Board] = {}
    for item in (word.strip() for word in visible.split(",")):
        mig = item.startswith("MIG-")
        if item.isascii() and item.isdigit():
            matches = uuids[int(item) : int(item) + 1]
        elif item.startswith("MIG-GPU-"):  # drivers before 470: MIG-GPU-<uuid>/<gi>/<ci>
            matches = [uuid for uuid in uuids if uuid == item[4:].split("/")[0]]
        elif mig:
            parent = find_mig_parent(item)
            matches = [uuid for uuid in uuids if uuid == parent]
        else:
            matches = [uuid for uuid in uuids if item.startswith("GPU-") and uuid.startswith(item)]
        if len(matches) != 1:
            break
        boards.setdefault(matches[0], Board(matches[0], mig=mig))
    return list(boards.values())
