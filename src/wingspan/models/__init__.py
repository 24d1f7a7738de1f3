"""The reference architecture (docs/reference-model.md) as a transformers model, its presets, its byte-level tokenizer.

Importing this package registers `model_type="wingspan_moe"` with `AutoConfig` and `AutoModelForCausalLM`.
"""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from wingspan.models.checkpoints import load_preset, seed, seed_small, write_random_checkpoint
from wingspan.models.configuration import WingspanMoeConfig
from wingspan.models.modeling import WingspanMoeForCausalLM, WingspanMoeModel
from wingspan.models.tokenizer import build_byte_tokenizer

AutoConfig.register("wingspan_moe", WingspanMoeConfig, exist_ok=True)
AutoModel.register(WingspanMoeConfig, WingspanMoeModel, exist_ok=True)
AutoModelForCausalLM.register(WingspanMoeConfig, WingspanMoeForCausalLM, exist_ok=True)

__all__ = [
    "WingspanMoeConfig",
    "WingspanMoeForCausalLM",
    "WingspanMoeModel",
    "build_byte_tokenizer",
    "load_preset",
    "seed",
    "seed_small",
    "write_random_checkpoint",
]
