"""An exported ladder folder for Transformers' Auto classes. Imported when such a folder is read (`serve/auto.py`)."""

from typing import Any

from transformers import AutoModelForCausalLM

from ladder_cli.nn.ladder import LadderModel
from ladder_cli.nn.ladder_config import LadderConfig, checked_config
from ladder_cli.serve.ladder_folder import read_ladder_folder
from ladder_cli.serve.served import MODEL_TYPE

# Of the Auto class's own making.
_INTERNAL = ("_from_auto", "adapter_kwargs", "trust_remote_code")


class PortableConfig(LadderConfig):
    """A ladder's config under the model type of the folder."""

    model_type = MODEL_TYPE

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As Transformers' own; of the values the ladder's are read, and none that names code to be run.

        Raises:
            UserError: if they describe no ladder.
        """
        checked = checked_config(config_dict, str(kwargs.get("name_or_path", "config.json")), cls)
        own = {name: getattr(checked, name) for name in LadderConfig.__annotations__ if name in config_dict}
        return super().from_dict(own | {"dtype": config_dict.get("dtype")}, **kwargs)


class PortableLadder:
    """What `AutoModelForCausalLM` calls; what it gets is a `LadderModel`."""

    config_class = PortableConfig

    @staticmethod
    def from_pretrained(folder: str, *_: Any, config: PortableConfig | None = None, **options: Any) -> LadderModel:
        """The ladder in a folder or a repository of the hub (`read_ladder_folder`)."""
        given = {name: value for name, value in options.items() if name not in _INTERNAL}
        # The Auto class has put it into the config, which is not the backbone's.
        attention = getattr(config, "_attn_implementation", None)
        return read_ladder_folder(folder, config, **({"attn_implementation": attention} if attention else {}), **given)


AutoModelForCausalLM.register(PortableConfig, PortableLadder, exist_ok=True)
