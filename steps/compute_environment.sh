#!/usr/bin/env bash
# Sets what features, training and extraction need of threads and memory; to be sourced.
# Usage: . steps/compute_environment.sh <num-threads>

export OMP_NUM_THREADS=$1
# Feature maps are larger than glibc's mmap threshold may become (32 MB): every step would take
# its memory from the kernel, page by page, and give it back. Keep it instead: worth 1.5 to 2 times
# the speed (tests/bench/train_step.py and extraction.py; how OpenMP waits did not matter).
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184}
