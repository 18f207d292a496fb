"""What several tests need: one Ray cluster per session."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A private Ray cluster of four logical CPUs, shared by all tests that need it."""
    import ray

    ray.init(
        address="local",
        include_dashboard=False,
        num_cpus=4,
        object_store_memory=200 * 2**20,
        logging_level="error",
        log_to_driver=False,
    )
    yield
    ray.shutdown()
