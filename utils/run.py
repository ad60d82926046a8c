#!/usr/bin/env python3
"""Run a command, or an array of jobs, on this machine with a log each: sv/jobs/run.py."""

import sys

try:
    from sv.jobs.run import main
except ImportError as error:
    sys.exit(f"utils/run.py: {error}; run '. ./path.sh' in the repository first")

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
