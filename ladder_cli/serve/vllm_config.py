"""The config of an exported ladder folder, as vLLM sees it: the backbone's own, with the side network beside it.

Imports torch and Transformers, and nothing of training. vLLM reads heads, widths and positions off the config; those
are the backbone's, so an object of the backbone's own class is what it gets.
"""

from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig

from ladder_cli.serve.served import ARCHITECTURE, MODEL_TYPE, SERVED_BACKBONES

# What the model is built of beside the side network's sizes.
_PARTS = (
    "pairs",
    "side_layers",
    "gate",
    "combine",
    "projection",
    "projection_rank",
    "tap_norm",
    "block",
    "side",
    "dtype",
)


class ServedLadderConfig(PreTrainedConfig):
    """Stands for the folder's `model_type` in Transformers' registry; its objects are of the backbone's class."""

    model_type = MODEL_TYPE

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """The backbone's config, with `ladder` as one more attribute.

        Where the backbone's last state is not read, its layers after the last tap are left out.

        Raises:
            ValueError: if the folder was written for another reader, or no ladder on such a backbone is served.
        """
        unused = kwargs.pop("return_unused_kwargs", False)
        backbone = dict(config_dict.get("backbone") or {})
        kind = backbone.pop("model_type", None)
        missing = [name for name in _PARTS if name not in config_dict]
        if missing or kind not in SERVED_BACKBONES:
            raise ValueError(
                f"config.json describes no ladder that is served here (backbone {kind}, without {missing}): write it "
                f"with ladder-export format=vllm, on {', '.join(SERVED_BACKBONES)}"
            )
        ladder = {name: config_dict[name] for name in _PARTS}
        # Stands only where there is a suffix.
        ladder["suffix_layers"] = config_dict.get("suffix_layers", 0)
        if not ladder["side"]["reads_final"]:
            kept = max(i for i, _ in ladder["pairs"])
            backbone["num_hidden_layers"] = kept
            if backbone.get("layer_types"):
                backbone["layer_types"] = backbone["layer_types"][:kept]
        config = AutoConfig.for_model(kind, **backbone)
        config.architectures = [ARCHITECTURE]
        config.dtype = getattr(torch, str(config_dict["dtype"]))
        config.tie_word_embeddings = config_dict.get("tie_word_embeddings", config.tie_word_embeddings)
        config.ladder = ladder
        return (config, kwargs) if unused else config
