"""GPU board energy through NVML: the driver's counter, or the integral of the power.

A board's counter holds everything on the board, its memory too, and whoever used it. It is
refreshed every 20 to 100 ms, so a command of under a second has a large error.
"""

import ctypes
import os
import warnings
from collections.abc import Callable
from typing import Any

from sv.energy.processes import find_descendants
from sv.energy.sensors.channel import Channel, Reader, unavailable
from sv.energy.sensors.nvml_power import WHOLE_BOARD, find_sources, read_facts
from sv.energy.sensors.visible_gpus import Board, choose_boards

LIBRARY = "libnvidia-ml.so.1"


class NvmlReader(Reader):
    """Reads the boards that the command may use.

    Args:
        visible: CUDA_VISIBLE_DEVICES; None: all boards.
        pci_order: CUDA_DEVICE_ORDER is PCI_BUS_ID, so that CUDA counts boards as NVML does.
    """

    def __init__(self, visible: str | None, pci_order: bool) -> None:
        self.channels: list[Channel] = []
        self._reads: dict[str, Callable[[], int]] = {}
        self._boards: list[Board] = []
        try:
            self._nvml = _load_nvml()
            self._boards, uncertain = self._find_boards(visible, pci_order)
        except _MissingError as error:
            self.channels = [unavailable("nvml", "gpu_board", LIBRARY, str(error))]
            return
        for board in self._boards:
            reason = WHOLE_BOARD if board.mig else uncertain
            for source in find_sources(self._nvml, board.uuid, board.handle, reason):
                self.channels.append(source.channel)
                if source.read is not None:
                    self._reads[source.channel.id] = source.read
        if not self._boards:
            reason = "no board" if visible is None else f"CUDA_VISIBLE_DEVICES='{visible}': none"
            self.channels = [unavailable("nvml", "gpu_board", "NVML", reason)]

    def _find_boards(self, visible: str | None, pci_order: bool) -> tuple[list[Board], str | None]:
        nvml = self._nvml
        try:
            nvml.nvmlInit()
            handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
            uuids = [_text(nvml.nvmlDeviceGetUUID(handle)) for handle in handles]
            names = {_text(nvml.nvmlDeviceGetName(handle)) for handle in handles}
        except nvml.NVMLError as error:
            raise _MissingError(f"NVML does not answer: {error}") from error
        boards = choose_boards(visible, uuids, self._find_mig_parent)
        by_uuid = dict(zip(uuids, handles, strict=True))
        boards = [
            Board(board.uuid, by_uuid[board.uuid], board.mig or self._is_mig(by_uuid[board.uuid]))
            for board in boards
        ]
        by_index = visible is not None and any(
            item.strip().isdigit() for item in visible.split(",")
        )
        uncertain = None
        if by_index and not pci_order and len(names) > 1:
            uncertain = "boards of several kinds: set CUDA_DEVICE_ORDER=PCI_BUS_ID to be sure which"
        return boards, uncertain

    def _find_mig_parent(self, mig_uuid: str) -> str | None:
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByUUID(mig_uuid)
            parent = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
            return _text(nvml.nvmlDeviceGetUUID(parent))
        except nvml.NVMLError:
            return None

    def _is_mig(self, handle: Any) -> bool:
        try:
            return bool(self._nvml.nvmlDeviceGetMigMode(handle)[0])
        except self._nvml.NVMLError:
            return False  # the board or the driver knows no MIG

    def read(self) -> dict[str, int | None]:
        """Read every board; a board that has dropped off the bus gives None."""
        values: dict[str, int | None] = {}
        for channel_id, read in self._reads.items():
            try:
                values[channel_id] = read()
            except self._nvml.NVMLError:
                values[channel_id] = None
        return values

    def read_facts(self) -> dict[str, object]:
        """Give the driver and, of each board, name, limit, MIG and who else computes on it."""
        if not self._boards:
            return {}
        own_pids = {os.getpid(), *find_descendants(os.getpid())}
        try:
            driver = _text(self._nvml.nvmlSystemGetDriverVersion())
        except self._nvml.NVMLError:
            driver = None
        boards = {
            board.uuid: {**read_facts(self._nvml, board.handle, own_pids), "mig": board.mig}
            for board in self._boards
        }
        return {"nvml": {"driver": driver, "boards": boards}}


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


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value  # bytes before version 11.5
