"""The compiled kernels for x86 CPUs."""
