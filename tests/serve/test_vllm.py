"""Ladders in vLLM: LADDER_VLLM_PYTHON=PYTHON python -m pytest tests/serve/test_vllm.py, with the Python of an
environment that has vLLM and this package (`pip install --no-deps`).

What needs no vLLM runs everywhere: that the plugin imports nothing of training, and says what it cannot do.
"""

import copy
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from ladder_cli.errors import UserError
from ladder_cli.generate.decoding import ModelLimits
from ladder_cli.generate.vllm_engine import VllmEngine
from ladder_cli.nn.connections import connect
from ladder_cli.nn.ladder import LadderModel
from ladder_cli.serve.dense import densify
from ladder_cli.serve.ladder_folder import read_ladder_folder, write_ladder_folder
from ladder_cli.serve.served import SERVED_BACKBONES
from ladder_cli.serve.vllm_config import ServedLadderConfig
from ladder_cli.serve.vllm_plugin import refuse_other_version

WORKER = Path(__file__).parent / "vllm_worker.py"
PYTHON = os.environ.get("LADDER_VLLM_PYTHON")
needs_vllm = pytest.mark.skipif(PYTHON is None, reason="needs vLLM: LADDER_VLLM_PYTHON names its Python")
# Heads of the backbone that vLLM's kernels have; those of the side network are narrower.
SHAPE = dict(
    vocab_size=96, hidden_size=128, intermediate_size=160, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256, pad_token_id=0, bos_token_id=1, eos_token_id=1,
    tie_word_embeddings=False, initializer_range=0.2,
)  # fmt: skip
BACKBONES = {
    "llama": lambda: LlamaConfig(**SHAPE, attention_bias=True, mlp_bias=True),
    "mistral": lambda: MistralConfig(**SHAPE, head_dim=32, sliding_window=16),
    "qwen2": lambda: Qwen2Config(**SHAPE),
    "qwen3": lambda: Qwen3Config(**SHAPE, head_dim=32),
}
SHAPES = {
    "aligned": (lambda: connect(4, "aligned"), dict(reduction=4)),
    "last": (lambda: connect(4, "last", layers=6, delta=2), dict(reduction=2, gate="learned", tap_norm="rms")),
    "first": (lambda: connect(4, [[1, 1], [2, 2]], layers=4), dict(reduction=4, block="attention", gate="vector")),
    "side": (lambda: connect(4, "even", layers=2), dict(reduction=4, combine="side", projection="shared")),
    "gated": (lambda: connect(4, "aligned"), dict(reduction=2, combine="gated", projection="low_rank", gate="fixed")),
    "wide-heads": (lambda: connect(4, "aligned"), dict(reduction=4, attention="backbone")),
    "suffix": (lambda: connect(4, "aligned", suffix_layers=2), dict(reduction=2, suffix_layers=2, rank=4, alpha=8)),
    "branch": (
        lambda: connect(4, "branch", layers=2),
        dict(reduction=1, gate="tap", combine="replace", projection="none", init="cloned"),
    ),
}
PAIRS = [("llama", "aligned"), ("mistral", "last"), ("qwen2", "gated"), ("qwen3", "first"), ("qwen2", "branch")]
PAIRS += [("qwen3", "side"), ("llama", "wide-heads")]
PAIRS += [("llama", "suffix"), ("mistral", "suffix"), ("qwen3", "suffix")]
PROMPTS = [[2 + (n * 7 + k * k) % 90 for k in range(3 + 5 * n)] for n in range(8)]


def ladder_folder(folder, backbone, shape):
    """An exported ladder of random weights, and the ladder."""
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(BACKBONES[backbone]()).eval()
    connections, options = SHAPES[shape]
    bare = copy.deepcopy(model)
    ladder = LadderModel.on(model, connections(), **options).eval()
    for parameter in ladder.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    ladder.save_pretrained(folder / "adapter")
    (folder / "out").mkdir()
    copied = LadderModel.from_pretrained(folder / "adapter", backbone=bare)
    densify(copied.bare_backbone, torch.float32)
    write_ladder_folder(copied, folder / "out", "random")
    return folder / "out", ladder


def greedy(model, prompt, tokens):
    """Tokens and the margin by which each was the best, each from a pass over the whole text."""
    ids, margins = list(prompt), []
    for _ in range(tokens):
        with torch.no_grad():
            best = model(input_ids=torch.tensor([ids])).logits[0, -1].float().topk(2)
        margins.append(float(best.values[0] - best.values[1]))
        ids.append(int(best.indices[0]))
    return ids[len(prompt) :], margins


@needs_vllm
@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "shape"), PAIRS)
def test_vllm_says_what_an_uncached_pass_says(backbone, shape, tmp_path):
    folder, ladder = ladder_folder(tmp_path, backbone, shape)
    job = {
        "model": str(folder), "prompts": PROMPTS, "max_tokens": 12, "output": str(tmp_path / "answers"),
        "options": {
            "dtype": "float32", "skip_tokenizer_init": True, "max_model_len": 128, "enable_prefix_caching": True,
            "enable_chunked_prefill": True, "max_num_batched_tokens": 32, "max_num_seqs": 4,
        },
    }  # fmt: skip
    (tmp_path / "job").write_text(json.dumps(job))
    done = subprocess.run(
        [str(PYTHON), str(WORKER), str(tmp_path / "job")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    answers = json.loads((tmp_path / "answers").read_text())["tokens"]
    bare = 0
    for prompt, tokens in zip(PROMPTS, answers, strict=True):
        expected, margins = greedy(ladder, prompt, 12)
        first = next((n for n, (one, other) in enumerate(zip(tokens, expected, strict=False)) if one != other), None)
        # A tie may go either way in another order of additions.
        assert first is None or margins[first] < 1e-3, (first, margins[first])
        bare += greedy(ladder.backbone, prompt, 12)[0] == expected
    assert bare < len(PROMPTS), "the side network changes nothing here"


@pytest.mark.parametrize(("backbone", "shape"), PAIRS)
def test_a_folder_is_read_back_bit_for_bit(backbone, shape, tmp_path):
    folder, ladder = ladder_folder(tmp_path, backbone, shape)
    read = read_ladder_folder(folder)
    for prompt in PROMPTS[:3]:
        ids = torch.tensor([prompt])
        given, expected = read(input_ids=ids).logits, ladder(input_ids=ids).logits
        if shape == "suffix":  # what was beside its weights is in them, and is rounded with them
            torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)
        else:
            assert torch.equal(given, expected)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_config_is_the_backbones_with_the_side_network_beside_it(backbone, tmp_path):
    folder, ladder = ladder_folder(tmp_path, backbone, "aligned")
    values = json.loads((folder / "config.json").read_text())
    config = ServedLadderConfig.from_dict(values)
    assert type(config) is type(ladder.backbone.config)
    assert (config.num_hidden_layers, config.architectures, config.dtype) == (4, ["LadderForCausalLM"], torch.float32)
    side, first = config.ladder["side"], ladder.side.layers[0]
    assert side["hidden_size"] == first.input_layernorm.weight.shape[0] == 32
    assert side["intermediate_size"] == first.mlp.up_proj.weight.shape[0]
    assert side["heads"] * side["head_size"] == first.self_attn.q_proj.weight.shape[0]
    assert side["qkv_bias"] == (first.self_attn.q_proj.bias is not None)
    assert side["qk_norm"] == (backbone == "qwen3")
    assert set(BACKBONES) == set(SERVED_BACKBONES)


def test_layers_that_are_not_run_are_not_built(tmp_path):
    folder, _ = ladder_folder(tmp_path, "qwen2", "branch")
    config = ServedLadderConfig.from_dict(json.loads((folder / "config.json").read_text()))
    assert config.num_hidden_layers == 2
    assert len(config.ladder["side"]["layer_types"]) == 2


def test_a_config_of_something_else_is_refused():
    with pytest.raises(ValueError, match=r"no ladder that is served here \(backbone gemma2"):
        ServedLadderConfig.from_dict({"model_type": "served_ladder", "backbone": {"model_type": "gemma2"}})


def test_the_plugin_imports_nothing_of_training():
    code = (
        "import sys\n"
        "for name in ('omegaconf', 'hydra', 'peft', 'bitsandbytes', 'datasets', 'accelerate', 'rich', 'math_verify'):\n"
        "    sys.modules[name] = None\n"
        "import ladder_cli.serve.vllm_plugin\n"
        "assert not {'torch', 'transformers', 'vllm'} & set(sys.modules)\n"
        "import ladder_cli.serve.vllm_config, ladder_cli.nn.gates, ladder_cli.nn.combine, ladder_cli.nn.projections\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # What the model itself imports of this package is in that list.
    model = Path(__file__).parents[2] / "ladder_cli" / "serve" / "vllm_model.py"
    imported = [line.split()[1] for line in model.read_text().splitlines() if line.startswith("from ladder_cli")]
    allowed = {"config.choices", "nn.combine", "nn.gates", "nn.projections", "serve.served", "serve.vllm_plugin"}
    assert {name.removeprefix("ladder_cli.") for name in imported} == allowed


def test_other_versions_are_refused_in_a_line():
    refuse_other_version("0.32.1")
    with pytest.raises(ValueError, match=r"served with vLLM 0\.32, and this is 0\.34\.0"):
        refuse_other_version("0.34.0")


@needs_vllm
@pytest.mark.slow
def test_two_processes_answer_as_one_and_either_goes_on_where_the_other_was_killed(tmp_path):
    here, temporary = str(Path(__file__).parents[2]), tmp_path / "temporary"
    temporary.mkdir()
    env = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "PYTHONPATH": here, "TMPDIR": str(temporary)}
    env["VLLM_RPC_BASE_PATH"] = tempfile.gettempdir()  # the names of sockets may not be long
    train = ["train.max_steps=2", "train.evaluations=1", "data.train_samples=8", "data.validation_samples=4"]
    hardware = ["hardware=cpu", "model.dtype=float32"]
    run = tmp_path / "run"
    _done([sys.executable, "-m", "ladder_cli.train", "method=ladder", *hardware, *train, f"output_dir={run}"], env)
    one = [str(PYTHON), "-m"]
    two = [str(PYTHON), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    asked = ["ladder_cli.evaluate", f"run={run}", "engine=vllm", "hardware=cpu", "limit=9", "decode.max_new_tokens=16"]
    for name, launcher in {"one": one, "two": two}.items():
        _done([*launcher, *asked, f"output_dir={tmp_path / name}"], env)
    whole = (tmp_path / "one/arithmetic/samples.jsonl").read_text()
    assert len(whole.splitlines()) == 9
    assert (tmp_path / "two/arithmetic/samples.jsonl").read_text() == whole
    # What one process began, two end. With a single sample missing, one of them has nothing to answer.
    (tmp_path / "one/arithmetic/samples.jsonl").write_text("".join(whole.splitlines(keepends=True)[:8]))
    _done([*two, *asked, f"output_dir={tmp_path / 'one'}"], env)
    assert (tmp_path / "one/arithmetic/samples.jsonl").read_text() == whole
    assert list(temporary.glob("ladder-vllm-*")) == []


def _done(command, env):
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-4000:]


def test_without_vllm_the_engine_says_what_to_install(monkeypatch):
    import importlib.metadata

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(UserError, match="pip install vllm"):
        VllmEngine(lambda: None, None, ModelLimits((), None))
