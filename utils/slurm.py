#!/usr/bin/env python3
"""Run a command, or an array of jobs, by Slurm with a log each, and wait: sv/jobs/slurm.py."""

import sys

try:
    from sv.jobs.slurm import main
except ImportError as error:
    sys.exit(f"utils/slurm.py: {error}; run '. ./path.sh' in the repository first")

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
