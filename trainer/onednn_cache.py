"""How many compiled kernels a process keeps."""

import os

#: Products of so many different shapes stay compiled. A pack meets about 30, and 7 for each kind of
#: stretch that rows share or part at (trainer.attention rounds their lengths); thirty layers then
#: use them again, and must find all of them.
KEPT = "512"


def limit_kernel_caches() -> None:
    """Keep fewer kernels than torch and oneDNN would; call it before torch computes anything.

    For bf16 products on the CPU oneDNN compiles a kernel for every new shape, and every text has a
    new length: with the usual 1,024 entries in two caches a training run of a 270 MB model grew by
    800 MB in kernels that it never used again. What the environment says already is left alone.
    """
    for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(cache, KEPT)
