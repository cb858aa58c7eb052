"""Limit the number of compiled oneDNN kernels that a process keeps."""

import os

#: Kernels that stay compiled, one a shape. A pack needs about 30, and 7 for each kind of segment
#: (trainer/backends/cpu/forest_attention.py rounds their lengths); thirty layers then use all of
#: them again.
CAPACITY = "512"


def limit_kernel_caches() -> None:
    """Lower the capacity of the kernel caches of torch and oneDNN; call this before torch computes.

    For bf16 products on the CPU oneDNN compiles a kernel for every new shape, and every text has a
    new length: with the usual 1,024 entries in two caches a training run of a 270 MB model grew by
    800 MB in kernels that it never used again. Variables that are set already are not changed.
    """
    for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(cache, CAPACITY)
