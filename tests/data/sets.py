"""Data sets as `conf/data` describes them, with other values where a test needs them."""

from importlib.resources import files

from omegaconf import OmegaConf

from ladder_cli.config.catalogue import CONFIG_MODULE
from ladder_cli.config.compose import merge_strictly
from ladder_cli.config.schema import DataConfig


def described(name: str, **values) -> DataConfig:
    """`conf/data/<name>.yaml`, without an instruction and with two rows for validation."""
    text = (files(CONFIG_MODULE) / "data" / f"{name}.yaml").read_text()
    given = {"instruction": "", "validation_samples": 2, **values}
    return merge_strictly(DataConfig, OmegaConf.merge(OmegaConf.create(text), OmegaConf.create(given)), "data.")
