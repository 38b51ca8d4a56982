"""What an exported ladder folder and the engine that serves it agree on. Imports nothing."""

MODEL_TYPE = "served_ladder"  # of the folder: plain Transformers must not take it for the backbone
ARCHITECTURE = "LadderForCausalLM"
SIDE_PREFIX = "side."
# The model types of backbones whose decoder layers the plugin builds for the side network too.
SERVED_BACKBONES = ("llama", "mistral", "qwen2", "qwen3")
