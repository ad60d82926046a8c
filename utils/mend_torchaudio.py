#!/usr/bin/env python3
"""Make `import torchaudio` work on a CPU-only torch by setting its CUDA extension aside.

Usage: python3 utils/mend_torchaudio.py   (status 1 if torchaudio still cannot be imported)

Does nothing where the import works, and nothing where torch has CUDA: there a failed import is
a real fault that must be seen.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path


def import_error(module: str) -> str | None:
    """Import a module in a fresh interpreter; give the last line of its error, None if it works."""
    command = [sys.executable, "-c", f"import {module}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else (done.stderr.strip() or "no message").splitlines()[-1]


def main() -> int:
    """Try the import, set the extension aside if that is the known fault, try again."""
    error = import_error("torchaudio")
    if error is None:
        return 0
    import torch  # noqa: PLC0415

    spec = importlib.util.find_spec("torchaudio")
    if torch.version.cuda is None and spec is not None and spec.origin is not None:
        lib = Path(spec.origin).parent / "lib"
        aside = lib / "set_aside"
        aside.mkdir(exist_ok=True)
        for pattern in ("_torchaudio*.so", "libtorchaudio*.so"):
            for file in lib.glob(pattern):
                print(f"torch {torch.__version__} has no CUDA: moved {file} to {aside}")
                file.rename(aside / file.name)
        error = import_error("torchaudio")
    if error is not None:
        print(f"utils/mend_torchaudio.py: import torchaudio: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
