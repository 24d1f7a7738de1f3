"""Every family of models whose sizes are known, and how a `config.json` of it is read."""

from wingspan.specs.families.build import model_from_config
from wingspan.specs.families.table import FAMILIES

__all__ = ["FAMILIES", "model_from_config"]
