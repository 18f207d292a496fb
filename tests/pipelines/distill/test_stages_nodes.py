"""A distillation on S3 runs on one node: its workers share a folder."""

from types import SimpleNamespace
from typing import Any

import pytest

from models.errors import InvalidOption
from pipelines.distill import stages


def test_several_nodes_need_a_shared_folder() -> None:
    config: Any = SimpleNamespace(output="s3://bucket/run")
    stages._refuse_nodes(config, 1)
    with pytest.raises(InvalidOption, match="all 2 nodes of the cluster share") as refused:
        stages._refuse_nodes(config, 2)
    assert refused.value.field == "output"
