"""vLLM's OpenAI-compatible server on exported folders, asked with the openai client: as `test_vllm.py`, with
LADDER_VLLM_PYTHON=PYTHON.
"""

import json
import os
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import torch
from peft import LoraConfig, get_peft_model

from ladder_cli.config.schema import ModelConfig
from ladder_cli.nn.connections import connect
from ladder_cli.nn.ladder import LadderModel
from ladder_cli.serve.ladder_folder import write_ladder_folder
from ladder_cli.trunk.loading import load_backbone, load_tokenizer
from tests.serve.openai_client import QUESTION
from tests.serve.test_vllm import PYTHON, greedy, needs_vllm

CLIENT = Path(__file__).with_name("openai_client.py")
TINY = ModelConfig(name="tiny", path="builtin:tiny", dtype="float32")
TOKENS = 16
PATIENCE_SECONDS = 1800


def free_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


@contextmanager
def server(folder, log, *words):
    """A server's port, once it answers; stopped by a signal afterwards."""
    port = free_port()
    command = [
        *(str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--port", str(port)),
        *("--host", "127.0.0.1", "--dtype", "float32", "--max-model-len", "256", "--enforce-eager", *words),
    ]
    # The package from where this test lies, whatever is installed there.
    here = str(Path(__file__).parents[2])
    env = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "PYTHONPATH": here}
    with log.open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=env)
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not answers(port):
                assert process.poll() is None, log.read_text()[-4000:]
                assert time.monotonic() < deadline, log.read_text()[-4000:]
                time.sleep(1)
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=120)
    assert not answers(port)


def answers(port):
    try:
        return urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status == 200
    except (URLError, OSError):
        return False


def ask(port, model, output):
    done = subprocess.run(
        [str(PYTHON), str(CLIENT), str(port), model, str(output)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(output.read_text())


@torch.no_grad()
def expected(model, tokenizer, ids):
    """The text of the greedy answer, up to an end token."""
    tokens, margins = greedy(model, ids, TOKENS)
    assert min(margins) > 1e-4, "a tie: choose another seed"
    end = next((place for place, token in enumerate(tokens) if token == tokenizer.eos_token_id), None)
    return tokenizer.decode(tokens[:end], skip_special_tokens=True)


def chat_ids(tokenizer):
    messages = [{"role": "user", "content": QUESTION}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)


def hold(said, model, tokenizer, names):
    """Completions, chat and stream are what the model itself says."""
    assert said["models"] == names
    assert said["prompt_tokens"] == len(chat_ids(tokenizer))
    assert said["completion"] == expected(model, tokenizer, tokenizer(QUESTION).input_ids)
    assert said["chat"] == "".join(said["pieces"]) == expected(model, tokenizer, chat_ids(tokenizer))
    assert len(said["pieces"]) > 1 or len(said["chat"]) < 2
    assert said["seconds_to_first_token"] > 0


@needs_vllm
@pytest.mark.slow
def test_a_ladder_is_served_to_the_openai_client(tmp_path):
    tokenizer, backbone = load_tokenizer(TINY), load_backbone(TINY, torch.device("cpu"))
    torch.manual_seed(5)
    ladder = LadderModel.on(backbone, connect(6, "aligned"), reduction=2).eval()
    for parameter in ladder.side.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    folder = tmp_path / "served"
    folder.mkdir()
    write_ladder_folder(ladder, folder, "tiny")
    tokenizer.save_pretrained(folder)
    with server(folder, tmp_path / "log", "--served-model-name", "mine") as port:
        said = ask(port, "mine", tmp_path / "said")
    hold(said, ladder, tokenizer, ["mine"])
    ids = chat_ids(tokenizer)
    assert said["chat"] != expected(backbone, tokenizer, ids), "the side network changes nothing here"


@needs_vllm
@pytest.mark.slow
def test_several_lora_adapters_are_served_by_name(tmp_path):
    """As `ladder-export format=peft` writes them: backbone and adapters are each a model of the server."""
    tokenizer, backbone = load_tokenizer(TINY), load_backbone(TINY, torch.device("cpu"))
    backbone.save_pretrained(tmp_path / "backbone")
    tokenizer.save_pretrained(tmp_path / "backbone")
    model = None
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        lora = LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
        model = get_peft_model(backbone, lora, adapter_name=name) if model is None else model
        if name not in model.peft_config:
            model.add_adapter(name, lora)
        model.set_adapter(name)
        model.save_pretrained(tmp_path, selected_adapters=[name])
    adapters = [f"{name}={tmp_path / name}" for name in ("one", "two")]
    words = ("--served-model-name", "backbone", "--enable-lora", "--lora-modules", *adapters)
    texts = {}
    with server(tmp_path / "backbone", tmp_path / "log", *words) as port:
        for name in ("one", "two"):
            said = ask(port, name, tmp_path / f"said {name}")
            model.set_adapter(name)
            hold(said, model.eval(), tokenizer, ["backbone", "one", "two"])
            texts[name] = said["chat"]
        said = ask(port, "backbone", tmp_path / "said")
    with model.disable_adapter():
        hold(said, model, tokenizer, ["backbone", "one", "two"])
    assert len({*texts.values(), said["chat"]}) == 3
