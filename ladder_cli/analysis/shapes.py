"""Published backbone shapes, to count parameters and memory without weights or network."""

from transformers import PreTrainedConfig, Qwen2Config


def qwen2_5_math_1_5b() -> PreTrainedConfig:
    """Qwen2.5-Math-1.5B (1,543,714,304 parameters, embeddings tied)."""
    return Qwen2Config(
        vocab_size=151_936,
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )


def qwen2_5_7b() -> PreTrainedConfig:
    """Qwen2.5-7B (7,615,616,512 parameters, embeddings not tied)."""
    return Qwen2Config(
        vocab_size=152_064,
        hidden_size=3584,
        intermediate_size=18_944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        max_position_embeddings=32_768,
        tie_word_embeddings=False,
    )
