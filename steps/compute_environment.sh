#!/usr/bin/env bash
# Sets what training and extraction need of the C library and the thread pool; to be sourced.
# Usage: . steps/compute_environment.sh <num-threads>

export OMP_NUM_THREADS=$1
# How long a thread spins before it sleeps. Spinning for ever (the default) costs five times the
# speed as soon as anything else runs on the machine; sleeping at once costs a third of it always.
# tests/bench/compute_environment.py compares them.
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-20000}
# Feature maps are larger than glibc's mmap threshold may become (32 MB): every step would take
# its memory from the kernel, page by page, and give it back. Keep it instead.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184}
