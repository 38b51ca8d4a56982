"""The contracts on a real pretrained model: LADDER_REAL_MODEL=DIR python -m pytest tests/test_real_model.py"""

import os

import pytest
import torch

from ladder_cli.config.methods import LadderMethodConfig
from ladder_cli.config.schema import ModelConfig
from ladder_cli.data.chat import PromptRenderer
from ladder_cli.methods.registry import method_for
from ladder_cli.trunk.live import LiveTrunk
from ladder_cli.trunk.loading import load_backbone, load_tokenizer

FOLDER = os.environ.get("LADDER_REAL_MODEL")
pytestmark = [
    pytest.mark.real_model,
    pytest.mark.skipif(FOLDER is None, reason="needs a pretrained model: LADDER_REAL_MODEL=DIR"),
]
QUESTIONS = ["What is 7 + 5?", "Name three colours of the rainbow and say which one you like.", "Why is the sky blue?"]


@pytest.fixture(scope="module")
def config():
    return ModelConfig(name="real", path=FOLDER, dtype="float32")


@pytest.fixture(scope="module")
def prompts(config):
    renderer = PromptRenderer(load_tokenizer(config), "")
    return [renderer.prompt_ids(question) for question in QUESTIONS]


@pytest.fixture(scope="module")
def trained(config, prompts):
    """An untrained ladder's logits beside the backbone's, then the ladder after three steps on a prompt."""
    backbone = load_backbone(config, torch.device("cpu"))
    ids = torch.tensor([prompts[1]])
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with torch.no_grad():
        expected = backbone(ids).logits
    model = method_for(
        LadderMethodConfig(name="ladder", kind="ladder", learning_rate=1e-3, reduction=6, recompute=False)
    ).attach(LiveTrunk(backbone))
    with torch.no_grad():
        assert torch.equal(model.eval()(ids).logits, expected)
    optimizer = torch.optim.AdamW(model.side.parameters(), lr=1e-3)
    for _ in range(3):
        model.train()(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), before, expected, ids


def test_training_leaves_the_backbone_as_it_was(trained):
    model, before, expected, ids = trained
    with torch.no_grad():
        assert not torch.equal(model(ids).logits, expected)
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_cached_batched_left_padded_generation_equals_uncached_single(trained, prompts):
    model, *_ = trained
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    options = {"max_new_tokens": 24, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    together = model.generate(input_ids=ids, attention_mask=mask, **options)[:, width:]
    for prompt, row in zip(prompts, together, strict=True):
        alone = model.generate(input_ids=torch.tensor([prompt]), use_cache=False, **options)[0, len(prompt) :]
        assert torch.equal(row, alone)
