"""Every family of models whose sizes are known, and how a `config.json` of it is read."""

from wingspan.specs.families.build import UnknownModelError, model_from_config, text_part
from wingspan.specs.families.table import FAMILIES, TEXT_PARTS

__all__ = ["FAMILIES", "TEXT_PARTS", "UnknownModelError", "model_from_config", "text_part"]
