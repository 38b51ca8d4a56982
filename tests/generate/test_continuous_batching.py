"""A ladder with the backbone's attention shape runs in Transformers' continuous batching."""

import pytest
import torch
from transformers import ContinuousBatchingConfig, GenerationConfig

from ladder_cli.config.methods import LadderMethodConfig
from ladder_cli.config.schema import ModelConfig
from ladder_cli.methods.registry import method_for
from ladder_cli.trunk.live import LiveTrunk
from tests.conftest import random_backbone

MODEL = ModelConfig(name="random", hub_id="nowhere/random")
CONFIG = LadderMethodConfig(name="ladder", kind="ladder", learning_rate=1e-3, reduction=2, attention="backbone")


@pytest.mark.filterwarnings("ignore")
def test_continuous_batching_gives_the_tokens_of_generate():
    model = method_for(CONFIG).attach(LiveTrunk(random_backbone("qwen2"), MODEL.hub_id)).eval()
    torch.manual_seed(0)
    for parameter in model.side.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    prompts = [torch.randint(2, 90, (length,)).tolist() for length in (5, 9, 3)]
    options = dict(max_new_tokens=8, do_sample=False, pad_token_id=0, eos_token_id=None)
    wanted = [model.generate(torch.tensor([p]), **options)[0, len(p) :].tolist() for p in prompts]
    results = model.generate_batch(
        prompts,
        generation_config=GenerationConfig(**options),
        continuous_batching_config=ContinuousBatchingConfig(num_blocks=64, max_batch_tokens=128),
        progress_bar=False,
    )
    assert [result.error for result in results.values()] == [None] * 3
    assert [list(result.generated_tokens) for result in results.values()] == wanted
