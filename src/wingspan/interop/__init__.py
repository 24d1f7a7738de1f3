"""Export and import of placements and load statistics: vLLM, SGLang, TensorRT-LLM."""
