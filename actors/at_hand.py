"""An engine's configuration with the checkpoints on this node."""

from dataclasses import replace

from cluster.storage.checkpoints import present
from models.engine_config import EngineConfig


def at_hand(config: EngineConfig) -> EngineConfig:
    """Fetch what is on S3 and not here yet. Raises StorageError if that fails."""
    return replace(config, target=present(config.target), drafter=present(config.drafter))
