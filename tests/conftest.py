"""What several tests need: one Ray cluster and one S3 server per session."""

import sys
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.s3_server import Server


def pytest_addoption(parser: pytest.Parser) -> None:
    told = "off: without the compiled kernels, as on a CPU that lacks AVX2"
    parser.addoption("--kernels", choices=("on", "off"), default="on", help=told)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("kernels") == "off":
        from models.compute.x86 import kernels

        kernels._kernels = None  # before the tests that need them are collected


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without the kernels, leave out the tests that run on torch's path anyway."""
    if config.getoption("kernels") == "off":
        both = {"arithmetic", "arithmetic_of_module"}
        items[:] = [item for item in items if not both & set(getattr(item, "fixturenames", ()))]


@pytest.fixture(autouse=True)
def no_cluster_by_accident(request: pytest.FixtureRequest) -> Iterator[None]:
    """Some calls connect this process to whatever Ray cluster runs, or start one.

    When that cluster ends, Ray ends the process, in the middle of another test.
    """
    before = in_a_cluster()
    yield
    assert request.node.get_closest_marker("ray") or in_a_cluster() == before


def in_a_cluster() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A private Ray cluster of four logical CPUs, shared by all tests that need it."""
    from cluster.connect import connected

    with connected(min_cpus=4):
        yield


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The URL of an S3 server on this machine."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty bucket, with the environment that leads there."""
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = f"bucket-{uuid.uuid4().hex[:8]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}"


@pytest.fixture
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator["Server"]:
    """A server of this test alone, its bucket, and the environment that leads there."""
    import boto3

    from tests.s3_server import Server

    server = Server()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    boto3.client("s3").create_bucket(Bucket=server.bucket)
    yield server
    server.stop()
