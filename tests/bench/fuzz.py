#!/usr/bin/env python3
"""The fuzz of tests/test_security.py with more examples: archives, tables, journals, TOML, zips.

Usage: python3 tests/bench/fuzz.py [EXAMPLES]

Target: none ends in anything but a result or an SvError. 20,000 examples a test take half an hour.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main(argv: list[str]) -> int:
    """Run it; return pytest's status."""
    env = {**os.environ, "SV_FUZZ_EXAMPLES": argv[0] if argv else "20000", "PYTHONPATH": str(ROOT)}
    words = ["-m", "pytest", "-q", "-k", "fuzz", "tests/test_security.py"]
    return subprocess.run([sys.executable, *words], cwd=ROOT, env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
