"""The compiled kernels, left out where there is no compiler; all else is in pyproject.toml."""

from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("models/compute/x86/csrc")

setup(
    ext_modules=[
        Extension(
            "models.compute.x86._kernels",
            sources=sorted(map(str, SOURCES.glob("*.c"))),
            depends=sorted(map(str, SOURCES.glob("*.h"))),
            # No compiler may fuse a product and a sum by itself: the same bits from every one.
            extra_compile_args=[
                *("-O3", "-mavx2", "-mfma", "-mf16c", "-fopenmp"),
                "-ffp-contract=off",
            ],
            extra_link_args=["-fopenmp"],
            optional=True,
        )
    ]
)
