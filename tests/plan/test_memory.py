"""The predicted peak of a step: counted by hand where that is possible, against real allocations elsewhere."""

import gc
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM

from ladder_cli.bench.counts import saved_activation_bytes
from ladder_cli.config.choices import Optimizer
from ladder_cli.config.compose import composed
from ladder_cli.config.evaluation import DecodeConfig
from ladder_cli.config.methods import LadderMethodConfig, QLoRAMethodConfig, SuffixMethodConfig
from ladder_cli.config.objective import ObjectiveConfig
from ladder_cli.config.schema import ModelConfig, TrainConfig
from ladder_cli.data.chat import PromptRenderer
from ladder_cli.generate.decoding import limits_of
from ladder_cli.generate.engine import Prompt
from ladder_cli.generate.transformers_engine import generate
from ladder_cli.methods.registry import method_for
from ladder_cli.nn.objective import objective_for
from ladder_cli.plan import memory
from ladder_cli.plan.allocation import ACTIVATIONS, BACKWARD, AllocationCount
from ladder_cli.plan.fake_backbone import stored_bytes
from ladder_cli.plan.memory import Step, optimizer_bytes, predict_memory, updating_bytes
from ladder_cli.plan.preflight import preflight
from ladder_cli.train.optimizer import make_optimizer
from ladder_cli.trunk.base import Batch
from ladder_cli.trunk.live import LiveTrunk
from ladder_cli.trunk.loading import architecture, backbone_shape, load_backbone
from tests.conftest import model_preset

LADDER = LadderMethodConfig(name="ladder", kind="ladder", learning_rate=1e-3, reduction=16)
SMALL_LORA = dict(learning_rate=1e-3, rank=4, alpha=8)
QLORA = QLoRAMethodConfig(name="qlora", kind="qlora", learning_rate=1e-3)
STEP = Step(rows=1, tokens=2048, accumulation=2, optimizer=Optimizer.ADAMW_8BIT, loss_chunk=512)


def shallow(name: str, layers: int = 3) -> ModelConfig:
    """A published shape with fewer layers, for speed."""
    preset = model_preset(name)
    return ModelConfig(**{**vars(preset), "shape": {**preset.shape, "num_hidden_layers": layers}})


def gib(model: ModelConfig, method, step: Step = STEP) -> float:
    return predict_memory(model, method_for(method), torch.bfloat16, step).total / 2**30


def parts_of(model: ModelConfig, method) -> dict[str, int]:
    return predict_memory(model, method_for(method), torch.bfloat16, STEP).parts


def test_storages_count_once_until_the_last_view_is_gone():
    with FakeTensorMode(), AllocationCount() as count:
        first = torch.empty(100, 10)  # 4,000 bytes
        view = first.view(10, 100)[2:]
        with count.part("loss"):
            second = torch.empty(500)  # 2,000
        assert count.live == {ACTIVATIONS: 4000, "loss": 2000}
        del first
        gc.collect()
        assert count.live[ACTIVATIONS] == 4000
        del view, second
        gc.collect()
        assert count.live.total() == 0
        count.in_backward = True
        third = torch.empty(250)
        assert count.live[BACKWARD] == third.untyped_storage().nbytes() == 1000
    assert count.peak == {ACTIVATIONS: 4000, "loss": 2000}


def test_what_a_layer_and_an_exponential_keep_is_counted_as_by_hand():
    class Toy(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(8, 16, bias=False)

        def forward(self, input_ids, attention_mask, labels):
            hidden = self.first(torch.nn.functional.one_hot(input_ids, 8).float())
            return SimpleNamespace(loss=hidden.exp().sum())

    ids = torch.zeros(2, 5, dtype=torch.long)
    # The layer keeps its input, 2 x 5 x 8 floats; the exponential its result, 2 x 5 x 16.
    assert saved_activation_bytes(Toy(), ids, ids) == 4 * (2 * 5 * 8 + 2 * 5 * 16)


def test_quantised_weights_have_the_size_that_bitsandbytes_gives_them():
    """As counted on a real layer: packed weights, and every tensor of the quantisation state."""
    import bitsandbytes

    weight = torch.randn(192, 320)
    layer = bitsandbytes.nn.Linear4bit(320, 192, bias=False, compress_statistics=True, quant_type="nf4")
    layer.weight = bitsandbytes.nn.Params4bit(weight, requires_grad=False, compress_statistics=True, quant_type="nf4")
    layer = layer.to("cpu")
    real = layer.weight.numel() * layer.weight.element_size()
    real += sum(v.numel() * v.element_size() for v in layer.weight.quant_state.as_dict(packed=True).values())
    assert stored_bytes(192, 320, "nf4") == pytest.approx(real, rel=0.02)
    assert stored_bytes(192, 320, "int8") == 192 * 320 + 4 * 192


def test_optimizer_state_has_the_size_that_bitsandbytes_gives_it():
    import bitsandbytes

    parameter = nn.Parameter(torch.randn(64, 256))
    optimizer = bitsandbytes.optim.AdamW8bit([parameter])
    parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    # The two lookup tables are shared by all parameters.
    state = {k: v for k, v in optimizer.state[parameter].items() if torch.is_tensor(v) and not k.startswith("qmap")}
    assert optimizer_bytes((64, 256), "adamw_8bit") == sum(v.numel() * v.element_size() for v in state.values())
    assert optimizer_bytes((1000,), "adamw_8bit") == optimizer_bytes((1000,), "adamw") == 8000


def test_what_muon_takes_is_what_the_allocator_saw():
    layer = nn.Linear(384, 256)
    optimizer = make_optimizer(layer, Optimizer.MUON, 1e-3, 0.0)
    shapes = [parameter.shape for parameter in layer.parameters()]
    for parameter in layer.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    state = [value for values in optimizer.state.values() for name, value in values.items() if name != "step"]
    assert sum(optimizer_bytes(shape, "muon") for shape in shapes) == sum(v.numel() * v.element_size() for v in state)
    gc.collect()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        optimizer.step()
    # Whether a product packs what it is given depends on the processor.
    assert updating_bytes(shapes, Optimizer.MUON) == pytest.approx(highest_of(profile), rel=0.2)


@pytest.mark.parametrize("objective", ["sft", "dpo", "grpo"])
@pytest.mark.parametrize("method", ["ladder", "ladder, recomputed", "qlora", "qlora, checkpointed"])
def test_the_prediction_for_a_cpu_is_what_its_allocator_saw(method, objective, tiny_config):
    """PyTorch's profiler reports every allocation of a real step; the two know nothing of each other."""
    config = {
        "ladder": LadderMethodConfig(name="ladder", kind="ladder", learning_rate=1e-3, reduction=2, recompute=False),
        "ladder, recomputed": LadderMethodConfig(name="ladder", kind="ladder", learning_rate=1e-3, reduction=2),
        "qlora": QLORA,
        "qlora, checkpointed": QLoRAMethodConfig(**{**vars(QLORA), "gradient_checkpointing": True}),
    }[method]
    rows, tokens = 4, 256
    minimised = ObjectiveConfig(objective)
    step = Step(rows, tokens, accumulation=1, optimizer=Optimizer.ADAMW, loss_chunk=512, objective=minimised)
    predicted = predict_memory(tiny_config, method_for(config), torch.float32, step)
    trunk = LiveTrunk(load_backbone(tiny_config, torch.device("cpu")))
    model = method_for(config).attach(trunk, reference=minimised.refers).train()
    ids = torch.randint(5, 400, (rows, tokens))
    # The last row is one token short: with padding there is an attention mask, which the prediction expects.
    mask, labels = torch.ones_like(ids), ids.clone()
    mask[-1, -1], labels[-1, -1] = 0, -100
    gc.collect()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        batch = Batch(ids, labels, mask, advantages=torch.ones(rows, 1))
        if objective == "sft":
            model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        else:
            objective_for(minimised)(model.hidden(batch), batch).total.backward()
    own = {"weights", "trained", "optimizer"}
    of_the_step = sum(size for part, size in predicted.parts.items() if part not in own)
    assert of_the_step == pytest.approx(highest_of(profile), rel=0.1)


def highest_of(profile):
    """Bytes that were allocated at the peak of a profile, beside what was there before it."""
    live = highest = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            live += event.nbytes()
            highest = max(highest, live)
    return highest


def test_a_7b_ladder_fits_seven_gib_by_default():
    assert gib(model_preset("qwen2.5-7b"), LADDER) < 7.0


def test_a_7b_ladder_fits_five_gib_with_the_settings_of_a_small_card():
    seven = model_preset("qwen2.5-7b")
    small = ModelConfig(**{**vars(seven), "head_quantization": "nf4", "embeddings_on_cpu": True})
    lean = LadderMethodConfig(**{**vars(LADDER), "int8_taps": True})
    prediction = predict_memory(small, method_for(lean), torch.bfloat16, Step(1, 2048, 2, Optimizer.ADAMW_8BIT, 128))
    assert prediction.total < 5.0 * 2**30
    assert prediction.host == 152064 * 3584 * 2


@pytest.mark.parametrize(("method", "machine", "most"), [
    ("suffix", (), 6.0), ("ladder-suffix", (), 6.0), ("ladder", (), 6.0), ("suffix", ("hardware=rtx-6gb",), 5.0),
])  # fmt: skip
def test_a_7b_fits_a_small_card_as_the_presets_are(method, machine, most):
    words = [f"method={method}", "model=qwen2.5-7b", *machine]
    config = composed("train", TrainConfig, words)
    step = Step(1, 2048, 2, config.train.optimizer.on("cuda"), config.train.loss_chunk)
    predicted = predict_memory(config.model, method_for(config.method), torch.bfloat16, step)
    assert predicted.total < most * 2**30


def test_every_lean_setting_lowers_what_is_kept_or_at_rest():
    small = shallow("qwen2.5-0.5b")
    plain = LadderMethodConfig(name="ladder", kind="ladder", learning_rate=1e-3, reduction=8, recompute=False)
    step = Step(1, 1024, 1, Optimizer.ADAMW, 256)

    def parts(model=small, method=plain, step=step):
        return predict_memory(model, method_for(method), torch.bfloat16, step).parts

    before = parts()
    recomputed = parts(method=LadderMethodConfig(**{**vars(plain), "recompute": True}))
    assert recomputed["activations"] < 0.6 * before["activations"]
    int8 = parts(method=LadderMethodConfig(**{**vars(plain), "int8_taps": True}))
    assert int8.get("activations", 0) + int8.get("taps", 0) < before["activations"] + before["taps"]
    assert parts(step=Step(1, 1024, 1, Optimizer.ADAMW, 64))["loss"] < before["loss"]
    assert parts(step=Step(1, 1024, 1, Optimizer.ADAMW_8BIT, 256))["optimizer"] < 0.3 * before["optimizer"]
    assert 0.5 <= parts(step=Step(1, 1024, 1, Optimizer.MUON, 256))["optimizer"] / before["optimizer"] < 0.51
    assert parts(model=ModelConfig(**{**vars(small), "quantization": "nf4"}))["weights"] < before["weights"]


def test_qlora_keeps_the_whole_backbones_activations_unless_it_is_checkpointed():
    small = shallow("qwen2.5-0.5b")
    checkpointed = QLoRAMethodConfig(**{**vars(QLORA), "gradient_checkpointing": True})
    assert parts_of(small, QLORA)["activations"] > 4 * parts_of(small, checkpointed)["activations"]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_of_layers_that_processes_share_each_counts_its_share_and_one_layer_twice_while_it_runs(checkpointing):
    model = replace(shallow("qwen2.5-0.5b"), quantization="none")
    method = method_for(replace(QLORA, gradient_checkpointing=checkpointing))
    step = replace(STEP, tokens=8)
    with torch.device("meta"):
        layer = AutoModelForCausalLM.from_config(architecture(model), dtype=torch.bfloat16).get_decoder().layers[0]
    size = sum(weight.nbytes for weight in layer.parameters())
    whole = predict_memory(model, method, torch.bfloat16, step).parts
    for processes in (2, 4):  # both divide every first dimension
        parts = predict_memory(model, method, torch.bfloat16, replace(step, shards=processes)).parts
        assert whole["weights"] - parts["weights"] == 3 * size * (processes - 1) / processes
        # With so few tokens the peak is where a layer is whole: the buffer it is gathered in, and its weights.
        assert parts["gathered"] == 2 * size


@pytest.mark.parametrize(("kind", "bytes_of_weight"), [("nf4", 0.5), ("int8", 1.0)])
def test_of_quantised_layers_the_weights_are_shared_and_the_scales_are_not(kind, bytes_of_weight):
    model, method = replace(shallow("qwen2.5-0.5b"), quantization=kind), method_for(QLORA)
    step = replace(STEP, tokens=8)
    with torch.device("meta"):
        layer = AutoModelForCausalLM.from_config(architecture(model), dtype=torch.bfloat16).get_decoder().layers[0]
    size = round(sum(w.numel() * (bytes_of_weight if w.ndim == 2 else 2.0) for w in layer.parameters()))
    whole = predict_memory(model, method, torch.bfloat16, step).parts
    for processes in (2, 4):
        parts = predict_memory(model, method, torch.bfloat16, replace(step, shards=processes)).parts
        assert whole["weights"] - parts["weights"] == 3 * size * (processes - 1) / processes
        assert parts["gathered"] == 2 * size


def test_what_was_asked_before_is_remembered_by_its_content(monkeypatch):
    model, asked = shallow("qwen2.5-0.5b"), []
    shape = memory._shape

    def watched(*arguments):
        asked.append(arguments)
        return shape(*arguments)

    monkeypatch.setattr(memory, "_shape", watched)
    monkeypatch.setattr(memory, "_PREDICTED", {})
    first = predict_memory(model, method_for(LADDER), torch.bfloat16, STEP)
    first.parts["weights"] += 1  # nobody else's
    again = predict_memory(replace(model), method_for(replace(LADDER, learning_rate=0.5)), torch.bfloat16, STEP)
    assert len(asked) == 1
    assert again.parts["weights"] == first.parts["weights"] - 1
    others = (
        (replace(model, quantization="nf4"), LADDER, STEP),
        (replace(model, shape=model.shape | {"num_hidden_layers": 2}), LADDER, STEP),
        (model, replace(LADDER, reduction=8), STEP),
        (model, LADDER, replace(STEP, tokens=STEP.tokens + 1)),  # whose peak may be the same
    )
    for changed, method, step in others:
        predict_memory(changed, method_for(method), torch.bfloat16, step)
    assert len(asked) == 5


def test_a_ladder_s_backward_pass_gathers_no_layer():
    seven = replace(shallow("qwen2.5-7b"), quantization="none")
    long = replace(STEP, shards=8, loss_chunk=2048)  # the loss is the peak
    assert "gathered" not in predict_memory(seven, method_for(LADDER), torch.bfloat16, long).parts


@pytest.mark.parametrize("method", ["ladder", "suffix", "branch", "qlora"])
def test_what_sampling_takes_is_what_the_allocator_sees_of_a_real_one(method, tiny_config, tiny_tokenizer):
    """Where more completions are generated at a time than are trained on, they decide the peak."""
    config = {
        "ladder": LadderMethodConfig(name="ladder", kind="ladder", learning_rate=1e-3, reduction=2),
        "suffix": SuffixMethodConfig(name="suffix", kind="suffix", layers=2, **SMALL_LORA),
        "branch": LadderMethodConfig(
            name="branch", kind="ladder", learning_rate=1e-3, reduction=1, connections="branch", layers=2, gate="tap",
            combine="replace", projection="none", init="cloned",
        ),
        "qlora": QLoRAMethodConfig(name="qlora", kind="qlora", **SMALL_LORA),
    }[method]  # fmt: skip
    rows, prompt, new = 64, 40, 60
    minimised = ObjectiveConfig("grpo", max_new_tokens=new)
    step = Step(1, prompt + new, 64, Optimizer.ADAMW, 512, objective=minimised, sampled=rows)
    predicted = predict_memory(tiny_config, method_for(config), torch.float32, step)
    assert predicted.parts["sampling"] > 0
    few = predict_memory(tiny_config, method_for(config), torch.float32, replace(step, sampled=1))
    assert "sampling" not in few.parts, "of one at a time, training decides"
    trunk = LiveTrunk(load_backbone(tiny_config, torch.device("cpu")))
    model = method_for(config).attach(trunk, reference=True).eval()
    renderer = PromptRenderer(tiny_tokenizer, "")
    prompts = [Prompt(str(n), "", torch.randint(5, 400, (prompt,)).tolist()) for n in range(rows)]
    limits = replace(limits_of(model), end_tokens=())
    gc.collect()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        made = list(generate(model, renderer, [prompts], DecodeConfig(new, rows, 1.0), 0, limits))
    assert max(each.tokens for batch in made for each in batch) == new
    live = highest = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            live += event.nbytes()
            highest = max(highest, live)
    assert predicted.parts["sampling"] == pytest.approx(highest, rel=0.15)


def planned(**hardware):
    words = ["objective=grpo", "objective.engine=vllm", "objective.engine_memory=0.25", "model=tiny"]
    config = composed("train", TrainConfig, words)
    return replace(config, hardware=replace(config.hardware, **hardware))


def test_what_vllm_takes_beside_a_training_is_counted(monkeypatch):
    """Its share of the device; on a CPU its weights and the cache that the environment gives it, where it does."""
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    config, cpu = planned(memory_gb=4.0), torch.device("cpu")
    memory = preflight(config, cpu)
    assert memory.prediction.parts["vllm"] == 1_000_000_000
    assert "sampling" not in memory.prediction.parts, "the model itself samples nothing"
    assert memory.fits
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "2")
    shape = backbone_shape(config.model, torch.float32)
    weights = 4 * sum(weight.numel() for weight in shape.parameters())
    assert preflight(config, cpu).prediction.parts["vllm"] == 2 * 2**30 + weights
    assert preflight(config, torch.device("cuda")).prediction.parts["vllm"] == 1_000_000_000
    alone = preflight(composed("train", TrainConfig, ["objective=grpo", "model=tiny"]), cpu)
    assert "vllm" not in alone.prediction.parts


def test_a_run_that_does_not_fit_beside_vllm_is_refused(monkeypatch):
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    cpu = torch.device("cpu")
    step = preflight(planned(memory_gb=64.0), cpu).prediction.total - 16_000_000_000
    capacity = step / 0.75 / 1e9
    assert preflight(planned(memory_gb=capacity * 1.01), cpu).fits
    tight = preflight(planned(memory_gb=capacity * 0.99), cpu)
    assert not tight.fits
    assert tight.remedies
