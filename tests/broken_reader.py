"""The meter with a sensor's library that breaks: broken_reader.py CALL ERROR AFTER_S METER'S WORDS.

CALL is a function of pynvml, or `nvml.NvmlReader.read` and the like, below sv.energy.sensors; from
AFTER_S seconds after the meter's start on it raises ERROR, an exception of Python's own.
"""

import builtins
import importlib
import sys
import time
from functools import wraps

from sv.bin import cli
from sv.bin.meter import main


def break_call(call: str, error: str, after_s: float) -> None:
    """Put a function that raises in the place of one that works."""
    if "." not in call:
        import pynvml as owner  # noqa: PLC0415
    else:
        module, name, call = call.split(".")
        owner = getattr(importlib.import_module(f"sv.energy.sensors.{module}"), name)
    works, begin_s = getattr(owner, call), time.monotonic()

    @wraps(works)
    def broken(*args, **more):
        if time.monotonic() - begin_s >= after_s:
            raise getattr(builtins, error)(f"{call} is broken")
        return works(*args, **more)

    setattr(owner, call, broken)


if __name__ == "__main__":
    break_call(sys.argv[1], sys.argv[2], float(sys.argv[3]))
    sys.exit(cli.run("sv.bin.meter", lambda _argv=None: main(sys.argv[4:])))
