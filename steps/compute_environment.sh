#!/usr/bin/env bash
# Sets what training and extraction need of the thread pool and the C library; to be sourced.
# Usage: . steps/compute_environment.sh <num-threads>

export OMP_NUM_THREADS=$1
# Feature maps are larger than glibc's mmap threshold may become (32 MB): every step would take
# its memory from the kernel, page by page, and give it back. Keep it instead: 1.6 times the speed
# on two cores (tests/bench/compute_environment.py; how OpenMP waits was tried too, and did not pay).
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184}
