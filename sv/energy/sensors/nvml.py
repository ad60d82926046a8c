"""GPU board energy through NVML: the driver's counter, or the integral of the power.

A board's counter holds everything on the board, its memory too, and whoever used it. It is
refreshed every 20 to 100 ms, so a command of under a second has a large error.

Some boards carry a processor (Grace-Hopper): their power has two scopes, the GPU and the whole
module. A board that reports only the module's power has the processor in its counter as well.
"""

import ctypes
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sv.energy.processes import find_descendants
from sv.energy.sensors.readers import ChannelSpec, Reader, ask, build_unavailable
from sv.errors import SvError

LIBRARY = "libnvidia-ml.so.1"
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
Read = Callable[[], int]


@dataclass(frozen=True)
class Board:
    """A GPU board: its UUID, its NVML handle, and whether it is split (MIG)."""

    uuid: str
    handle: Any
    mig: bool


class NvmlReader(Reader):
    """Reads the boards that the command may use.

    Args:
        visible: CUDA_VISIBLE_DEVICES; None: all boards.
        pci_order: CUDA_DEVICE_ORDER is PCI_BUS_ID, so that CUDA counts boards as NVML does.
    """

    def __init__(self, visible: str | None, pci_order: bool) -> None:
        self._boards: list[Board] = []
        try:
            self._nvml = _load_nvml()
            self._boards, uncertain = self._find_boards(visible, pci_order)
        except _MissingError as error:
            super().__init__([build_unavailable("nvml", "gpu_board", LIBRARY, str(error))])
            return
        sources = [
            source
            for board in self._boards
            for source in find_sources(self._nvml, board, uncertain)
        ]
        reads = {channel.id: read for channel, read in sources if read is not None}
        super().__init__([channel for channel, _ in sources], reads, self._nvml.NVMLError)

    def _ask(self, call: Callable[..., Any], *args: Any) -> Any:
        """Return what NVML answers; None where board or driver do not know it."""
        return ask(partial(call, *args), self._nvml.NVMLError)

    def _find_boards(self, visible: str | None, pci_order: bool) -> tuple[list[Board], str | None]:
        """Return the boards, and why it is uncertain that they are the command's."""
        nvml = self._nvml
        try:
            nvml.nvmlInit()
            handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
            by_uuid = {_decode(nvml.nvmlDeviceGetUUID(handle)): handle for handle in handles}
            names = {_decode(nvml.nvmlDeviceGetName(handle)) for handle in handles}
        except nvml.NVMLError as error:
            raise _MissingError(f"NVML does not answer: {error}") from error
        boards = []
        for uuid, mig in choose_boards(visible, list(by_uuid), self._find_mig_parent).items():
            modes = self._ask(nvml.nvmlDeviceGetMigMode, by_uuid[uuid])
            boards.append(Board(uuid, by_uuid[uuid], mig or bool(modes and modes[0])))
        if not boards:
            where = "" if visible is None else f"CUDA_VISIBLE_DEVICES='{visible}': "
            raise _MissingError(f"{where}no board")
        by_index = any(item.strip().isdigit() for item in (visible or "").split(","))
        uncertain = by_index and not pci_order and len(names) > 1
        return boards, SEVERAL_KINDS if uncertain else None

    def _find_mig_parent(self, mig_uuid: str) -> str | None:
        nvml = self._nvml
        handle = self._ask(nvml.nvmlDeviceGetHandleByUUID, mig_uuid)
        parent = handle and self._ask(nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle, handle)
        uuid = parent and self._ask(nvml.nvmlDeviceGetUUID, parent)
        return uuid and _decode(uuid)

    def read_metadata(self) -> dict[str, object]:
        """Return the driver and, of each board, name, limit, MIG and who else computes on it.

        What NVML does not report is None (in a container it may see no process, or know them by
        other numbers).
        """
        if not self._boards:
            return {}
        nvml, own_pids = self._nvml, {os.getpid(), *find_descendants(os.getpid())}
        boards = {}
        for board in self._boards:
            handle = board.handle
            running = self._ask(nvml.nvmlDeviceGetComputeRunningProcesses, handle)
            others = running and sorted({int(process.pid) for process in running} - own_pids)
            boards[board.uuid] = {
                "name": _decode(nvml.nvmlDeviceGetName(handle)),
                "power_limit_mw": self._ask(nvml.nvmlDeviceGetEnforcedPowerLimit, handle),
                "other_pids": others,
                "mig": board.mig,
            }
        driver = self._ask(nvml.nvmlSystemGetDriverVersion)
        return {"nvml": {"driver": driver and _decode(driver), "boards": boards}}


class _MissingError(Exception):
    """NVML cannot be used; the message is the reason."""


def _load_nvml() -> Any:
    try:
        ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise _MissingError(f"no NVIDIA driver on this machine ({LIBRARY} not found)") from error
    try:
        with warnings.catch_warnings():
            # PyPI's `pynvml` hooks the import of nvidia-ml-py only to print a FutureWarning.
            warnings.simplefilter("ignore", FutureWarning)
            import pynvml  # noqa: PLC0415
    except ImportError as error:
        raise _MissingError("Python package missing; run: pip install nvidia-ml-py") from error
    if not hasattr(pynvml, "_nvmlGetFunctionPointer"):  # the unofficial module of before 2021
        raise _MissingError("outdated pynvml; run: pip install --force-reinstall nvidia-ml-py")
    return pynvml


def choose_boards(
    visible: str | None, uuids: list[str], find_mig_parent: Callable[[str], str | None]
) -> dict[str, bool]:
    """Choose boards by a list of indices, GPU-<uuid prefix> and MIG-<uuid>, as CUDA reads it.

    Args:
        visible: Value of CUDA_VISIBLE_DEVICES; None: unset, all boards; "" or "-1": none.
        uuids: UUIDs of the boards (``GPU-...``) in NVML's order.
        find_mig_parent: Returns the board's UUID for a MIG device's, None if there is none.

    Returns:
        The UUID of each board in the order of the list, and whether it is chosen as the parent of
        a MIG device. As in CUDA, an item that names nothing hides itself and all items after it.
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
    """

    name: str
    is_busy: bool


def list_devices(visible: str | None) -> list[Device]:
    """List the devices that CUDA_VISIBLE_DEVICES (None: unset) leaves and that answer, in order.

    Raises:
        SvError: NVML cannot be used.
    """
    try:
        nvml = _load_nvml()
        nvml.nvmlInit()
        indices = range(nvml.nvmlDeviceGetCount())
    except _MissingError as error:
        raise SvError(str(error)) from error
    except nvml.NVMLError as error:
        raise SvError(f"NVML does not answer: {error}") from error

    def query(call: Callable[..., Any], *args: Any) -> Any:
        return ask(partial(call, *args), nvml.NVMLError)

    def find_uuid(handle: Any) -> str | None:
        uuid = None if handle is None else query(nvml.nvmlDeviceGetUUID, handle)
        return None if uuid is None else _decode(uuid)

    def find_parent(mig_uuid: str) -> str | None:
        handle = query(nvml.nvmlDeviceGetHandleByUUID, mig_uuid)
        return handle and find_uuid(
            query(nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle, handle)
        )

    def list_slices(handle: Any) -> list[str]:
        modes = query(nvml.nvmlDeviceGetMigMode, handle)
        count = query(nvml.nvmlDeviceGetMaxMigDeviceCount, handle) if modes and modes[0] else 0
        parts = (
            query(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, i) for i in range(count or 0)
        )
        return [uuid for part in parts if (uuid := find_uuid(part))]

    handles = {i: query(nvml.nvmlDeviceGetHandleByIndex, i) for i in indices}
    boards = {find_uuid(handle) or f"dead {i}": handle for i, handle in handles.items()}
    devices: dict[str, Device] = {}
    for item in boards if visible is None else map(str.strip, visible.split(",")):
        chosen = {item: False} if visible is None else choose_boards(item, [*boards], find_parent)
        if not chosen:
            break
        ((board, mig),) = chosen.items()
        if boards[board] is not None:
            is_busy = bool(query(nvml.nvmlDeviceGetComputeRunningProcesses, boards[board]))
            names = [item] if mig else list_slices(boards[board]) or [board]
            devices |= {name: Device(name, is_busy) for name in names}
    return list(devices.values())


def find_sources(
    nvml: Any, board: Board, uncertain: str | None
) -> list[tuple[ChannelSpec, Read | None]]:
    """Find what can be read of a board.

    Args:
        nvml: The module pynvml, initialised.
        board: The board.
        uncertain: What a reader of its figures should know.

    Returns:
        Channels, and how to read them (None: unavailable). The board (or module) first, in the
        total; then the cross-check of its counter and the module around it, where they can be
        read, never in the total.
    """
    handle, field = board.handle, "NVML_FI_DEV_POWER_INSTANT"

    def probe(read: Callable[..., int], *args: Any) -> Read | None:
        call = partial(read, *args)
        return None if ask(call, nvml.NVMLError) is None else call

    gpu_power = probe(_read_instant_mw, nvml, handle, nvml.NVML_POWER_SCOPE_GPU)
    module_power = probe(_read_instant_mw, nvml, handle, nvml.NVML_POWER_SCOPE_MODULE)
    usage = probe(nvml.nvmlDeviceGetPowerUsage, handle)
    counter = probe(nvml.nvmlDeviceGetTotalEnergyConsumption, handle)
    with_cpu = gpu_power is None and module_power is not None
    power = module_power if with_cpu else gpu_power or usage
    name = _decode(nvml.nvmlDeviceGetName(handle))
    power_source = f"NVML {'nvmlDeviceGetPowerUsage' if power is usage else field} {name}"
    kind = "module" if with_cpu else "board"
    channel_id, boundary = f"nvml.{kind}.{board.uuid}", f"gpu_{kind}"
    notes = [WHOLE_BOARD if board.mig else uncertain, WITH_CPU if with_cpu else None]
    inside = (f"nvml.module.{board.uuid}",) if module_power and not with_cpu else ()
    integral = ChannelSpec(
        channel_id, boundary, "derived", "power_integral", power_source, "mW",
        reason="; ".join(filter(None, notes)) or None, contained_in=inside,
        update_period_s=UPDATE_PERIOD_S, resolution=1, sensor_rel=UNCERTAINTY,
        sensor_rel_basis=UNCERTAINTY_BASIS,
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
        try:
            why: object = f"{nvml.nvmlDeviceGetPowerUsage(handle)} mW now"
        except nvml.NVMLError as error:
            why = error
        why = f"neither energy nor power can be read: {why}"
        sources.append((build_unavailable(channel_id, boundary, "NVML", why), None))
    if inside:
        module = replace(
            integral, id=inside[0], boundary="gpu_module", reason=NOT_SUMMED, in_total=False,
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


def _decode(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value  # bytes before version 11.5
