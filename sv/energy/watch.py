"""Show the running stages below a folder, again and again on a terminal."""

import sys
import time
from pathlib import Path

from sv.energy.live import find_running, format_live
from sv.errors import SvError

REFRESH_S = 2.0
HOME_AND_CLEAR = "\x1b[H\x1b[J"  # ECMA-48: cursor to the top, erase to the end


def watch(folder: Path) -> None:
    """Print the running stages; on a terminal every `REFRESH_S` until Ctrl-C, else once.

    Raises:
        SvError: There is no such folder.
    """
    if not folder.is_dir():
        raise SvError(f"no such folder {folder}")
    on_terminal = sys.stdout.isatty()
    try:
        while True:
            start = HOME_AND_CLEAR if on_terminal else ""
            print(start + "\n".join(describe(folder)), flush=True)
            if not on_terminal:
                return
            time.sleep(REFRESH_S)
    except KeyboardInterrupt:
        return


def describe(folder: Path) -> list[str]:
    """Give a line for each running stage; what killed meters left behind is only counted."""
    running, stale = find_running(folder)
    lines = [format_live(live) for live in running] or [f"no stage is running below {folder}"]
    if stale:
        lines.append(
            f"{len(stale)} killed before their end (first: {stale[0]}); "
            "run: python3 -m sv.bin.meter --rebuild <its folder>"
        )
    return lines
