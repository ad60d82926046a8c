"""Marks: what a metered command tells its meter, one JSON line each, appended to a file.

The meter names the file in ``$SV_METER_MARKS``; programs read that variable and pass the path.
"""

import json
import os
import time

# A program that goes on from earlier work says so: then that work's energy belongs to its result.
RESUMED = "resumed"


def write_mark(path: str | None, mark: str, **fields: float | str) -> None:
    """Append a mark with the time; without a meter (no path) there is nobody to tell.

    Args:
        path: Value of ``$SV_METER_MARKS``, None or empty outside a meter.
        mark: Name, e.g. ``"resumed"`` or ``"epoch"``.
        fields: What belongs to it, e.g. ``epoch=3``.
    """
    if not path:
        return
    line = json.dumps({"mark": mark, "time_unix": time.time(), **fields}) + "\n"
    # One write of one line in append mode: lines of several programs do not mix.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
