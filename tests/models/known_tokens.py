"""Digests of what the shipped targets generate: `python -m tests.models.known_tokens` prints them.

Tokens and log-probabilities depend on every number of every pass. With the compiled kernels they
are the same on every x86 CPU with AVX2.
"""

import hashlib

from models import kernels
from models.engine import EngineConfig, build_loop
from models.request import Request, Sampling

MODELS = "examples/models"
CASES = {
    "text": ("text-target", [(1, 2, 3), (5, 6, 7, 8), (100, 101)], 40, 1.0),
    "raster": ("digits-raster", [(128,), (131,)], 64, 1.7),
    "next-scale": ("digits-scale", [(128,), (131,)], 130, 1.0),
}
DTYPES = ("float32", "bfloat16")


def digest(case: str, dtype: str) -> str:
    """Of a few sampled requests of one target."""
    name, prompts, length, guidance = CASES[case]
    text = {"min_p": 0.02, "top_p": 0.95, "temperature": 0.8} if case == "text" else {}
    sampling = Sampling(max_tokens=length, logprobs=1, **text)
    loop = build_loop(
        EngineConfig(
            target=f"{MODELS}/{name}",
            dtype=dtype,
            batch_size=2,
            max_length=160 if case == "text" else None,
            guidance=guidance,
        )
    )
    requests = [
        Request(id=str(i), prompt=prompt, seed=i, sampling=sampling)
        for i, prompt in enumerate(prompts)
    ]
    found = sorted(loop.run(requests), key=lambda result: result.id)
    told = [(result.tokens, result.logprobs, result.exactness) for result in found]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def main() -> None:
    """Use the compiled kernels whatever torch thinks of the CPU: it may have been told to."""
    from models import _kernels

    kernels._kernels = _kernels
    for case in CASES:
        for dtype in DTYPES:
            print(case, dtype, digest(case, dtype), flush=True)


if __name__ == "__main__":
    main()
