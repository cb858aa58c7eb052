"""Run a command as if the processor had AVX2 and nothing newer: `tools/avx2.py COMMAND …`.

Most laptops and servers made before 2023 have no AVX-512 and no bfloat16 instructions. On a newer
x86 processor this limits oneDNN, ATen and numba to AVX2, checks by timing that bfloat16 products
are emulated then, and runs the command. On a processor without AVX-512 the ordinary suite runs
that code already, and the command is skipped unless --always is given.
"""

import os
import subprocess
import sys

SETTINGS = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+popcnt,+sse4.1,+sse4.2",
}
MEASURE = """
import time, torch
def gigaflops(dtype, size=1024, times=3):
    left = torch.ones(size, size, dtype=dtype)
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        torch.mm(left, left)
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds) / 1e9
single, half = gigaflops(torch.float32), gigaflops(torch.bfloat16)
print(f"GEMM 1024^3: float32 {single:.0f} GFLOP/s, bfloat16 {half:.1f} GFLOP/s")
raise SystemExit(0 if half < single / 4 else 1)
"""


def main(arguments: list[str]) -> int:
    always = arguments[:1] == ["--always"]
    command = arguments[1:] if always else arguments
    if not command:
        print(__doc__, file=sys.stderr)
        return 2
    if not always and not has_avx512():
        print("This processor has no AVX-512: `make test` has run the AVX2 code already.")
        return 0
    env = {**os.environ, **SETTINGS}
    if subprocess.run([sys.executable, "-c", MEASURE], env=env, check=False).returncode:
        print("bfloat16 is not emulated: the settings had no effect here.", file=sys.stderr)
        return 1
    return subprocess.run(command, env=env, check=False).returncode


def has_avx512() -> bool:
    """Return whether the processor has AVX-512, as torch detects it without the settings."""
    import torch

    return bool(torch.cpu.get_capabilities().get("avx512_f"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
