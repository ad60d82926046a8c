#!/usr/bin/env python3
"""Make `import torchaudio` work with any build of torch by setting its compiled extension aside.

Usage: python3 utils/mend_torchaudio.py   (status 1 if torchaudio still cannot be imported)

The extension is built for one CUDA (13, of torchaudio 2.11) and dies with a torch for another one,
or for none; what the recipe uses is pure Python. Does nothing where the import works. Where the
extension is not what is wrong it is put back, and the error is shown.
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


def set_extension_aside(lib: Path) -> dict[Path, Path]:
    """Move the extension's files out of the reach of the import; return from where to where."""
    aside = lib / "set_aside"
    aside.mkdir(exist_ok=True)
    files = [*lib.glob("_torchaudio*.so"), *lib.glob("libtorchaudio*.so")]
    return {file: file.rename(aside / file.name) for file in files}


def main() -> int:
    """Try the import, set the extension aside if it fails, try again."""
    error = import_error("torchaudio")
    if error is None:
        return 0
    spec = importlib.util.find_spec("torchaudio")
    if spec is not None and spec.origin is not None and import_error("torch") is None:
        try:
            moved = set_extension_aside(Path(spec.origin).parent / "lib")
        except OSError as refused:
            error = f"{error}; its extension cannot be set aside ({refused})"
        else:
            first, error = error, import_error("torchaudio")
            for file, now in moved.items():
                if error is None:
                    print(f"{first}: moved {file} to {now}")
                else:
                    now.rename(file)
    if error is not None:
        print(f"utils/mend_torchaudio.py: import torchaudio: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
