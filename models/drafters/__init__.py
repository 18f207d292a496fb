"""The drafters, one file each."""

from models.drafters.base import DraftContext, Drafter
from models.drafters.jacobi import JacobiDrafter
from models.drafters.lookup import LookupDrafter
from models.drafters.model import ModelDrafter

__all__ = ["DraftContext", "Drafter", "JacobiDrafter", "LookupDrafter", "ModelDrafter"]
