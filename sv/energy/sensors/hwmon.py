"""The machine's power or energy from sensors of its board: hwmon.

Nobody but the maker knows what a rail feeds, so only the sensors that the config names are read,
and their sum is taken for the whole machine.
"""

from collections.abc import Callable
from pathlib import Path

from sv.energy.sensors.polled import Measurement, SensorError


def build_hwmon(names: tuple[str, ...], sysfs: Path) -> Callable[[], Measurement]:
    """Build the reading of the sum of sensors.

    Args:
        names: ``<name>/<file>`` as in ``power_meter/power1_average``; ``<name>`` is what the
            sensor's own file ``name`` says, or its folder (``hwmon3``) where two say the same.
        sysfs: Root of sysfs.

    Returns:
        A function that gives the sum in uW (power) or uJ (energy).

    Raises:
        SensorError: A sensor is not there, or its name is not one sensor's alone.
    """
    files = [_find(name, sysfs) for name in names]

    def measure() -> Measurement:
        total = 0
        for file in files:
            try:
                total += int(file.read_text(encoding="ascii"))
            except OSError as error:
                raise SensorError(f"{file}: {error.strerror}") from error
            except ValueError as error:
                raise SensorError(f"{file}: not a number") from error
        return Measurement(total)

    return measure


def _find(name: str, sysfs: Path) -> Path:
    wanted, _, file_name = name.partition("/")
    folders = sorted((sysfs / "class" / "hwmon").glob("hwmon*"))
    found = [
        folder / file_name
        for folder in folders
        if wanted in (folder.name, _read_name(folder)) and (folder / file_name).exists()
    ]
    if len(found) != 1:
        known = ", ".join(f"{folder.name} is {_read_name(folder)}" for folder in folders) or "none"
        problem = "is not there" if not found else "is more than one sensor's: name the folder"
        raise SensorError(f"hwmon_sensors: {name} {problem} (sensors: {known})")
    return found[0]


def _read_name(folder: Path) -> str | None:
    try:
        return (folder / "name").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
