"""A backbone of which the upper layers alone are loaded: they are those of the whole one."""

import logging

import pytest
import torch
from transformers import AutoModelForCausalLM

from ladder_cli.config.schema import ModelConfig
from ladder_cli.trunk.base import Batch
from ladder_cli.trunk.loading import load_backbone, parameter_count
from ladder_cli.trunk.open import open_upper
from ladder_cli.trunk.partial import CannotBePartial, load_upper
from ladder_cli.trunk.upper import run_above
from tests.conftest import random_backbone
from tests.trunk.test_rows import REQUEST, rows_of

CPU = torch.device("cpu")


@pytest.fixture
def model(architecture, tmp_path):
    random_backbone(architecture).save_pretrained(tmp_path)
    return ModelConfig(name=architecture, path=str(tmp_path), dtype="float32", attention="eager")


def test_the_upper_layers_run_as_those_of_the_whole_backbone(model):
    whole, upper = load_backbone(model, CPU), open_upper(model, CPU, 2)
    assert type(upper).__name__ == "PartialTrunk"
    layers = upper.parts.layers
    assert len(layers) == 4
    assert {p.device.type for layer in layers[:2] for p in layer.parameters()} == {"meta"}
    assert upper.device == CPU
    assert parameter_count(upper.whole()) == parameter_count(whole)
    batch = Batch(torch.tensor(rows_of(11)))
    with torch.no_grad():
        expected = whole(**batch.inputs, output_hidden_states=True)
        last = run_above(upper.parts, 2, expected.hidden_states[2], batch.inputs)
        assert torch.equal(last, expected.hidden_states[-1])
        assert torch.equal(upper.parts.head_logits(last), expected.logits)


def test_no_layer_need_be_loaded(model):
    upper = load_upper(model, CPU, 0)
    assert {p.device.type for p in upper.get_decoder().parameters()} == {"meta", "cpu"}
    whole = AutoModelForCausalLM.from_pretrained(model.path)
    assert torch.equal(upper.get_input_embeddings().weight, whole.get_input_embeddings().weight)
    assert torch.equal(upper.get_output_embeddings().weight, whole.get_output_embeddings().weight)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantised_upper_layers_are_those_of_the_whole_backbone(quantization):
    model = ModelConfig(name="tiny", path="builtin:tiny", dtype="float32", quantization=quantization)
    whole, upper = load_backbone(model, CPU), load_upper(model, CPU, 2)
    for one, other in zip(whole.model.layers[4:], upper.model.layers[4:], strict=True):
        mine, theirs = one.state_dict(), other.state_dict()
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_row_that_is_missing_after_all_is_read_of_the_whole_backbone(tmp_path, caplog):
    random_backbone("llama").save_pretrained(tmp_path)
    model = ModelConfig(name="llama", path=str(tmp_path), dtype="float32")
    upper, batch = open_upper(model, CPU, 1), Batch(torch.tensor(rows_of(11)))
    with caplog.at_level(logging.WARNING, "ladder_cli"):
        taps = upper.taps(REQUEST, batch)
    assert [line for line in caplog.messages if "the whole backbone is loaded" in line]
    expected = open_upper(model, CPU, 4).taps(REQUEST, batch)
    assert all(torch.equal(taps.rungs[layer], expected.rungs[layer]) for layer in expected.rungs)


def test_code_of_strangers_is_loaded_whole():
    with pytest.raises(CannotBePartial):
        load_upper(ModelConfig(name="tiny", path="builtin:tiny", trust_remote_code=True), CPU, 1)
