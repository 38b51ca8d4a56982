"""Every method file of conf/ trains and generates on the embedded model."""

import pytest
import torch

from ladder_cli.config.catalogue import choices
from ladder_cli.config.compose import composed
from ladder_cli.config.schema import TrainConfig
from ladder_cli.data.batching import PaddingCollator
from ladder_cli.data.chat import PromptRenderer
from ladder_cli.data.encoding import encode
from ladder_cli.data.registry import load_examples
from ladder_cli.methods.registry import method_for
from ladder_cli.trunk.base import Batch
from ladder_cli.trunk.live import LiveTrunk
from ladder_cli.trunk.loading import load_backbone


@pytest.mark.parametrize("preset", choices("method"))
def test_a_preset_trains_and_generates(preset, tiny_tokenizer):
    config = composed("train", TrainConfig, [f"method={preset}", "data.train_samples=32"])
    renderer = PromptRenderer(tiny_tokenizer, config.data.instruction)
    rows = encode(load_examples(config.data, None, 0).train, renderer, 256, "error")
    collate = PaddingCollator(tiny_tokenizer.pad_token_id)
    sample = [Batch(**collate([row])) for row in rows]
    model = method_for(config.method).attach(LiveTrunk(load_backbone(config.model, torch.device("cpu"))), sample)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=config.peak_learning_rate)
    losses = []
    for _ in range(20):
        loss = model.train()(**collate([rows[n] for n in range(8)])).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    ids = sample[0].input_ids[:, :20]
    assert model.eval().generate(input_ids=ids, max_new_tokens=4, do_sample=False, eos_token_id=None).shape[1] == 24
