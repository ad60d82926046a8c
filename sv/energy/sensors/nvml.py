"""GPU board energy through NVML: the driver's counter, or the integral of the power.

A board's counter holds everything on the board, its memory too, and whoever used it. It is
refreshed every 20 to 100 ms, so a command of under a second has a large error.

Some boards carry a processor (Grace-Hopper): their power has two scopes, the GPU and the whole
module. A board that reports only the module's power has the processor in its counter as well.
"""

import ctypes
import os
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sv.energy.processes import find_descendants
from sv.energy.sensors.readers import (
    MAX_POWER_W,
    THROWN,
    ChannelSpec,
    Read,
    Reader,
    ask,
    build_unavailable,
    check_reading,
    describe,
)
from sv.energy.units import UNITS_PER_W
from sv.errors import SvError

LIBRARY = "libnvidia-ml.so.1"
DEVICES = Path("/dev")  # nvidia0, nvidia1, ...: what CUDA opens, with or without NVML
UNREAD = "nvml.board.unknown"  # all boards, where there are some and NVML cannot even name them
WHOLE_BOARD = "MIG: the energy is that of the whole parent board"
WITH_CPU = "the module's figure: the processor on it is inside"
NOT_SUMMED = "the whole module with its processor; boards of one module may all show the same"
CROSS_CHECK = "a cross-check of the counter, never summed"
SEVERAL_KINDS = "boards of several kinds: set CUDA_DEVICE_ORDER=PCI_BUS_ID to be sure which"
UPDATE_PERIOD_S = 0.1  # refreshed every 20 to 100 ms (PETSc manual, profiling on GPUs, 2024)
UNCERTAINTY = 0.05
UNCERTAINTY_BASIS = (
    "assumed: the NVML reference states 5 % for the power of Fermi and Kepler boards, and nothing "
    "for later ones"
)
VALUES = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")  # by nvmlValueType_t
LIMIT_MARGIN = 2.0  # over its highest power limit a board is for milliseconds only


@dataclass(frozen=True)
class Board:
    """A GPU board of the machine.

    Attributes:
        uuid: Its UUID; its number in NVML if it does not say one.
        name: Of its kind; None if it does not say.
        handle: Of NVML; None: it does not answer.
        fault: Why.
    """

    uuid: str
    name: str | None
    handle: Any
    fault: str | None = None


class NvmlReader(Reader):
    """Reads the boards that the command may use; a dead one costs no other its figure.

    Args:
        visible: CUDA_VISIBLE_DEVICES; None: all boards.
        pci_order: CUDA_DEVICE_ORDER is PCI_BUS_ID, so that CUDA counts boards as NVML does.
    """

    def __init__(self, visible: str | None, pci_order: bool) -> None:
        self._boards: dict[str, Board] = {}
        self._chosen: dict[str, bool] = {}  # UUID -> MIG
        try:
            self._nvml = _load_nvml()
            self._boards = find_boards(self._nvml)
            self._chosen = self._choose(visible)
        except _MissingError as error:
            name = name_missing(visible) if error.has_boards else "nvml"
            super().__init__([build_unavailable(name, "gpu_board", LIBRARY, str(error))])
            return
        by_index = any(item.strip().isdigit() for item in (visible or "").split(","))
        kinds = {board.name for board in self._boards.values() if board.name is not None}
        uncertain = SEVERAL_KINDS if by_index and not pci_order and len(kinds) > 1 else None
        sources = [
            source
            for uuid, mig in self._chosen.items()
            for source in find_sources(
                self._nvml, self._boards[uuid], WHOLE_BOARD if mig else uncertain
            )
        ]
        reads = {channel.id: read for channel, read in sources if read is not None}
        super().__init__([channel for channel, _ in sources], reads)

    def _choose(self, visible: str | None) -> dict[str, bool]:
        find_parent = partial(find_mig_parent, self._nvml)
        chosen = choose_boards(visible, list(self._boards), find_parent)
        if not chosen:
            where = "" if visible is None else f"CUDA_VISIBLE_DEVICES='{visible}': "
            raise _MissingError(f"{where}no board")
        return {
            uuid: mig or is_split(self._nvml, self._boards[uuid]) for uuid, mig in chosen.items()
        }

    def read_metadata(self) -> dict[str, object]:
        """Return the driver, the boards, and the failures.

        Of each board that the command may use: name, limit, MIG and who else computes on it; what
        NVML does not report is None (in a container it may see no process, or know them by other
        numbers). ``other_boards`` has the names of those that the command may not use.
        """
        if not self._boards:
            return super().read_metadata()
        own_pids = {os.getpid(), *find_descendants(os.getpid())}
        boards = {}
        for uuid, mig in self._chosen.items():
            board = self._boards[uuid]
            if board.handle is None:
                continue
            running = query(self._nvml, "nvmlDeviceGetComputeRunningProcesses", board.handle)
            boards[uuid] = {
                "name": board.name,
                "power_limit_mw": query(
                    self._nvml, "nvmlDeviceGetEnforcedPowerLimit", board.handle
                ),
                "other_pids": running and sorted({int(p.pid) for p in running} - own_pids),
                "mig": mig,
            }
        about = {
            "driver": _decode(query(self._nvml, "nvmlSystemGetDriverVersion")),
            "boards": boards,
            "other_boards": {
                uuid: board.name
                for uuid, board in self._boards.items()
                if uuid not in self._chosen and board.handle is not None
            },
        }
        return {**super().read_metadata(), "nvml": about}


class _MissingError(Exception):
    """NVML cannot be used; the message is the reason.

    Attributes:
        has_boards: Whether CUDA may have boards nevertheless.
    """

    def __init__(self, reason: str, *, has_boards: bool = False) -> None:
        super().__init__(reason)
        self.has_boards = has_boards


def name_missing(visible: str | None) -> str:
    """Return the id of the channel of all boards, where NVML fails.

    Those that the command may use have no figure then, which a witness reports; a
    CUDA_VISIBLE_DEVICES that names no board (empty, -1, Slurm's NoDevFiles) hides them all.
    """
    hidden = visible is not None and not re.match(r"\s*(\d|GPU-|MIG-)", visible)
    return "nvml" if hidden else UNREAD


def _load_nvml() -> Any:
    try:
        ctypes.CDLL(LIBRARY)
    except OSError as error:
        device = next(iter(sorted(DEVICES.glob("nvidia[0-9]*"))), None)
        if device is None:
            reason = f"no NVIDIA driver on this machine ({LIBRARY} not found)"
            raise _MissingError(reason) from error
        reason = f"{LIBRARY} not found, but there is {device}; in a container: run it with "
        reason += "NVIDIA_DRIVER_CAPABILITIES=compute,utility"
        raise _MissingError(reason, has_boards=True) from error
    try:
        with warnings.catch_warnings():
            # PyPI's `pynvml` hooks the import of nvidia-ml-py only to print a FutureWarning.
            warnings.simplefilter("ignore", FutureWarning)
            import pynvml  # noqa: PLC0415
    except ImportError as error:
        reason = "Python package missing; run: pip install nvidia-ml-py"
        raise _MissingError(reason, has_boards=True) from error
    if not hasattr(pynvml, "_nvmlGetFunctionPointer"):  # the unofficial module of before 2021
        reason = "outdated pynvml; run: pip install --force-reinstall nvidia-ml-py"
        raise _MissingError(reason, has_boards=True)
    return pynvml


def query(nvml: Any, call: str, *args: Any) -> Any:
    """Return what NVML answers; None where board or driver do not know it."""
    return ask(lambda: getattr(nvml, call)(*args))


def find_boards(nvml: Any) -> dict[str, Board]:
    """Find the boards that CUDA counts, by UUID and in NVML's order.

    Raises:
        _MissingError: NVML does not answer at all.
    """
    try:
        nvml.nvmlInit()
        count = nvml.nvmlDeviceGetCount()
    except THROWN as error:
        # A library without a driver, as on a login node: CUDA has no boards there either.
        is_loaded = getattr(error, "value", None) != nvml.NVML_ERROR_DRIVER_NOT_LOADED
        reason = f"NVML does not answer: {describe(error)}"
        raise _MissingError(reason, has_boards=is_loaded) from error
    boards = []
    for i in range(count):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(i)
        except THROWN as error:
            # NVML counts the boards that a container or a job may not open, CUDA does not.
            if getattr(error, "value", None) != nvml.NVML_ERROR_NO_PERMISSION:
                boards.append(Board(str(i), None, None, describe(error)))
            continue
        uuid = _decode(query(nvml, "nvmlDeviceGetUUID", handle))
        boards.append(
            Board(uuid or str(i), _decode(query(nvml, "nvmlDeviceGetName", handle)), handle)
        )
    return {board.uuid: board for board in boards}


def find_mig_parent(nvml: Any, mig_uuid: str) -> str | None:
    """Return the UUID of the board that a MIG device is a part of; None if there is none."""
    handle = query(nvml, "nvmlDeviceGetHandleByUUID", mig_uuid)
    parent = handle and query(nvml, "nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle)
    return parent and _decode(query(nvml, "nvmlDeviceGetUUID", parent))


def is_split(nvml: Any, board: Board) -> bool:
    """Return whether a board is split into MIG devices."""
    modes = board.handle and query(nvml, "nvmlDeviceGetMigMode", board.handle)
    return bool(modes and modes[0])


def choose_boards(
    visible: str | None, uuids: Sequence[str], find_mig_parent: Callable[[str], str | None]
) -> dict[str, bool]:
    """Choose boards by a list of indices, GPU-<uuid prefix> and MIG-<uuid>, as CUDA reads it.

    Args:
        visible: Value of CUDA_VISIBLE_DEVICES; None: unset, all boards; "" or "-1": none.
        uuids: UUIDs of the boards (``GPU-...``) in NVML's order; of one that does not say it, its
            number.
        find_mig_parent: Returns the board's UUID for a MIG device's, None if there is none.

    Returns:
        The UUID of each board in the order of the list, and whether it is chosen as the parent of
        a MIG device. As in CUDA, an item that names nothing hides itself and all items after it;
        but a UUID that no board has is taken for that of one that does not say its own.
    """
    if visible is None:
        return dict.fromkeys(uuids, False)
    boards: dict[str, bool] = {}
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
        if not matches and item.startswith(("GPU-", "MIG-")):
            matches = [uuid for uuid in uuids if uuid.isdigit() and uuid not in boards][:1]
        if len(matches) != 1:
            break
        boards.setdefault(matches[0], mig)
    return boards


@dataclass(frozen=True)
class Device:
    """What CUDA takes for a GPU: a board, or a slice of one (MIG).

    Attributes:
        name: Its UUID, as CUDA_VISIBLE_DEVICES names it.
        is_busy: Some process computes on its board (a container may not see others').
        kind: What its board is called; None if it does not say.
        capability: Its compute capability, as (7, 0); None if it does not say.
    """

    name: str
    is_busy: bool
    kind: str | None
    capability: tuple[int, int] | None


def list_devices(visible: str | None) -> list[Device]:
    """List the devices that CUDA_VISIBLE_DEVICES (None: unset) leaves and that answer, in order.

    Raises:
        SvError: NVML cannot be used.
    """
    try:
        nvml = _load_nvml()
        boards = find_boards(nvml)
    except _MissingError as error:
        raise SvError(str(error)) from error

    def list_slices(board: Board) -> list[str]:
        if not is_split(nvml, board):
            return []
        count = query(nvml, "nvmlDeviceGetMaxMigDeviceCount", board.handle) or 0
        call = "nvmlDeviceGetMigDeviceHandleByIndex"
        parts = (query(nvml, call, board.handle, i) for i in range(count))
        uuids = (part and query(nvml, "nvmlDeviceGetUUID", part) for part in parts)
        return [_decode(uuid) for uuid in uuids if uuid]

    devices: dict[str, Device] = {}
    for item in boards if visible is None else map(str.strip, visible.split(",")):
        find_parent = partial(find_mig_parent, nvml)
        chosen = {item: False} if visible is None else choose_boards(item, [*boards], find_parent)
        if not chosen:
            break
        ((uuid, mig),) = chosen.items()
        board = boards[uuid]
        if board.handle is not None:
            is_busy = bool(query(nvml, "nvmlDeviceGetComputeRunningProcesses", board.handle))
            names = [item] if mig else list_slices(board) or [uuid]
            found = query(nvml, "nvmlDeviceGetCudaComputeCapability", board.handle)
            capability = (found[0], found[1]) if found else None
            devices |= {name: Device(name, is_busy, board.name, capability) for name in names}
    return list(devices.values())


def find_sources(
    nvml: Any, board: Board, note: str | None
) -> list[tuple[ChannelSpec, Read | None]]:
    """Find what can be read of a board.

    Args:
        nvml: The module pynvml, initialised.
        board: The board.
        note: What a reader of its figures should know.

    Returns:
        Channels, and how to read them (None: unavailable). The board (or module) first, in the
        total; then the cross-check of its counter and the module around it, where they can be
        read, never in the total.
    """
    if board.handle is None:
        reason = f"the board does not answer: {board.fault}"
        return [(build_unavailable(f"nvml.board.{board.uuid}", "gpu_board", "NVML", reason), None)]
    handle, field, errors = board.handle, "NVML_FI_DEV_POWER_INSTANT", []

    def probe(call: Callable[..., int], *args: Any) -> Read | None:
        read = partial(call, *args)
        try:
            check_reading(read())
        except THROWN as error:
            errors.append(describe(error))
            return None
        return read

    gpu_power = probe(_read_instant_mw, nvml, handle, nvml.NVML_POWER_SCOPE_GPU)
    module_power = probe(_read_instant_mw, nvml, handle, nvml.NVML_POWER_SCOPE_MODULE)
    usage = probe(nvml.nvmlDeviceGetPowerUsage, handle)
    counter = probe(nvml.nvmlDeviceGetTotalEnergyConsumption, handle)
    with_cpu = gpu_power is None and module_power is not None
    power = module_power if with_cpu else gpu_power or usage
    name = board.name or "board"
    limits = ask(lambda: nvml.nvmlDeviceGetPowerManagementLimitConstraints(handle))
    limit_w = LIMIT_MARGIN * limits[1] / UNITS_PER_W["mW"] if limits and not with_cpu else 0.0
    power_source = f"NVML {'nvmlDeviceGetPowerUsage' if power is usage else field} {name}"
    kind = "module" if with_cpu else "board"
    channel_id, boundary = f"nvml.{kind}.{board.uuid}", f"gpu_{kind}"
    notes = [note, WITH_CPU if with_cpu else None]
    inside = (f"nvml.module.{board.uuid}",) if module_power and not with_cpu else ()
    integral = ChannelSpec(
        channel_id, boundary, "derived", "power_integral", power_source, "mW",
        reason="; ".join(filter(None, notes)) or None, contained_in=inside,
        update_period_s=UPDATE_PERIOD_S, resolution=1,
        max_power_w=min(limit_w, MAX_POWER_W[boundary]) or None,
        sensor_rel=UNCERTAINTY, sensor_rel_basis=UNCERTAINTY_BASIS,
    )  # fmt: skip
    sources: list[tuple[ChannelSpec, Read | None]] = []
    if counter is not None:
        source = f"NVML nvmlDeviceGetTotalEnergyConsumption {name}"
        channel = replace(
            integral, kind="measured", method="counter_delta", source=source, unit="mJ"
        )
        sources.append((channel, counter))
        integral = replace(
            integral, id=f"nvml.power.{board.uuid}", reason=CROSS_CHECK, in_total=False,
            contained_in=(channel_id, *inside),
        )  # fmt: skip
    if power is not None:
        sources.append((integral, power))
    if not sources:
        why = f"neither energy nor power can be read: {'; '.join(dict.fromkeys(errors))}"
        sources.append((build_unavailable(channel_id, boundary, "NVML", why), None))
    if inside:
        module = replace(
            integral, id=inside[0], boundary="gpu_module", reason=NOT_SUMMED, in_total=False,
            max_power_w=None,
            source=f"NVML {field}, module scope, {name}", contained_in=(),
        )  # fmt: skip
        sources.append((module, module_power))
    return sources


def _read_instant_mw(nvml: Any, handle: Any, scope: int) -> int:
    """Read the instantaneous power; the plain call returns a mean over 1 s since Ampere."""
    item = nvml.nvmlDeviceGetFieldValues(handle, [(nvml.NVML_FI_DEV_POWER_INSTANT, scope)])[0]
    if item.nvmlReturn != nvml.NVML_SUCCESS:
        raise nvml.NVMLError(item.nvmlReturn)
    value = getattr(item.value, VALUES[item.valueType])
    if value <= 0:  # some drivers report so that a board lacks this scope
        raise nvml.NVMLError(nvml.NVML_ERROR_NOT_SUPPORTED)
    return int(value)


def _decode(value: str | bytes | None) -> str | None:
    return value.decode() if isinstance(value, bytes) else value  # bytes before version 11.5
