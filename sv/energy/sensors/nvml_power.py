"""What NVML can tell of one board's energy: its counter, its power, and whether a CPU is inside.

Some boards carry a processor (Grace-Hopper): their power has two scopes, the GPU and the whole
module. A board that gives only the module's power has the processor in its counter as well.
Takes the module pynvml as an argument: `sv.energy.sensors.nvml` loads it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sv.energy.sensors.channel import Channel, unavailable

WHOLE_BOARD = "MIG: the energy is that of the whole parent board"
WITH_CPU = "the module's figure: the processor on it is inside"
NOT_SUMMED = "the whole module with its processor; boards of one module may all show the same"
CROSS_CHECK = "a cross-check of the counter, never summed"
UPDATE_PERIOD_S = 0.1  # refreshed every 20 to 100 ms (PETSc manual, profiling on GPUs, 2024)
UNCERTAINTY = 0.05
UNCERTAINTY_BASIS = (
    "assumed: the NVML reference states 5 % for the power of Fermi and Kepler boards, and nothing "
    "for later ones"
)
VALUES = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")  # by nvmlValueType_t


@dataclass(frozen=True)
class Source:
    """A channel and how to read it; None where it is unavailable."""

    channel: Channel
    read: Callable[[], int] | None


def find_sources(nvml: Any, uuid: str, handle: Any, reason: str | None) -> list[Source]:
    """Find what can be read of a board.

    Args:
        nvml: The module pynvml, initialised.
        uuid: The board's.
        handle: NVML's handle of it.
        reason: What a reader of its figures should know.

    Returns:
        The board (or module) first, in the total; then the cross-check of its counter and the
        module around it, where they can be read, never in the total.
    """
    gpu_power = _probe(nvml, lambda: _read_instant(nvml, handle, nvml.NVML_POWER_SCOPE_GPU))
    module_power = _probe(nvml, lambda: _read_instant(nvml, handle, nvml.NVML_POWER_SCOPE_MODULE))
    with_cpu = gpu_power is None and module_power is not None
    usage = _probe(nvml, lambda: int(nvml.nvmlDeviceGetPowerUsage(handle)))
    counter = _probe(nvml, lambda: int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)))
    power = module_power if with_cpu else gpu_power or usage
    field = "NVML_FI_DEV_POWER_INSTANT"
    power_name = "nvmlDeviceGetPowerUsage" if power is usage else field
    board = _text(nvml.nvmlDeviceGetName(handle))
    kind = "module" if with_cpu else "board"
    channel_id, boundary = f"nvml.{kind}.{uuid}", f"gpu_{kind}"
    reason = "; ".join(filter(None, (reason, WITH_CPU if with_cpu else None))) or None
    inside = ()
    sources = []
    if module_power is not None and not with_cpu:
        inside = (f"nvml.module.{uuid}",)
        source = f"NVML {field}, module scope, {board}"
        channel = _build_power(inside[0], "gpu_module", source, reason=NOT_SUMMED, in_total=False)
        sources.append(Source(channel, module_power))
    if counter is not None:
        source = f"NVML nvmlDeviceGetTotalEnergyConsumption {board}"
        channel = Channel(
            channel_id, boundary, "measured", "counter_delta", source, "mJ", reason=reason,
            contained_in=inside, update_period_s=UPDATE_PERIOD_S, resolution=1,
            sensor_rel=UNCERTAINTY, sensor_rel_basis=UNCERTAINTY_BASIS,
        )  # fmt: skip
        sources.insert(0, Source(channel, counter))
        if power is not None:
            channel = _build_power(
                f"nvml.power.{uuid}", boundary, f"NVML {power_name} {board}", reason=CROSS_CHECK,
                in_total=False, contained_in=(channel_id, *inside),
            )  # fmt: skip
            sources.insert(1, Source(channel, power))
    elif power is not None:
        channel = _build_power(
            channel_id, boundary, f"NVML {power_name} {board}", reason=reason, contained_in=inside
        )
        sources.insert(0, Source(channel, power))
    else:
        why = _explain(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        why = f"neither energy nor power can be read: {why}"
        sources.insert(0, Source(unavailable(channel_id, boundary, "NVML", why), None))
    return sources


def _build_power(
    channel_id: str, boundary: str, source: str, *, reason: str | None, in_total: bool = True,
    contained_in: tuple[str, ...] = (),
) -> Channel:  # fmt: skip
    return Channel(
        channel_id, boundary, "derived", "power_integral", source, "mW", in_total=in_total,
        reason=reason, contained_in=contained_in, update_period_s=UPDATE_PERIOD_S, resolution=1,
        sensor_rel=UNCERTAINTY, sensor_rel_basis=UNCERTAINTY_BASIS,
    )  # fmt: skip


def _probe(nvml: Any, read: Callable[[], int]) -> Callable[[], int] | None:
    try:
        read()
    except nvml.NVMLError:
        return None
    return read


def _explain(nvml: Any, call: Callable[[], object]) -> str:
    try:
        call()
    except nvml.NVMLError as error:
        return str(error)
    return "it answers now"


def _read_instant(nvml: Any, handle: Any, scope: int) -> int:
    """Read the instantaneous power in mW; the plain call gives a mean over 1 s since Ampere."""
    item = nvml.nvmlDeviceGetFieldValues(handle, [(nvml.NVML_FI_DEV_POWER_INSTANT, scope)])[0]
    if item.nvmlReturn != nvml.NVML_SUCCESS:
        raise nvml.NVMLError(item.nvmlReturn)
    value = getattr(item.value, VALUES[item.valueType])
    if value <= 0:  # so some drivers say that a board has not got this scope
        raise nvml.NVMLError(nvml.NVML_ERROR_NOT_SUPPORTED)
    return int(value)


def read_facts(nvml: Any, handle: Any, own_pids: set[int]) -> dict[str, object]:
    """Read what else is worth knowing of a board.

    Returns:
        Name, power limit, and the processes on it that are not of this meter; null where NVML
        does not tell (in a container it may see no process, or know them by other numbers).
    """
    facts: dict[str, object] = {"name": _text(nvml.nvmlDeviceGetName(handle))}
    try:
        facts["power_limit_mw"] = int(nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
    except nvml.NVMLError:
        facts["power_limit_mw"] = None
    try:
        running = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        facts["other_pids"] = sorted({int(process.pid) for process in running} - own_pids)
    except nvml.NVMLError:
        facts["other_pids"] = None
    return facts


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value  # bytes before version 11.5
