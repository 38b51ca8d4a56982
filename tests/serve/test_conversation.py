"""A chat renders as training did, remembers what was said, and lets adapters and their backbone take turns."""

import pytest
import torch

from ladder_cli import UserError
from ladder_cli.config.evaluation import DecodeConfig
from ladder_cli.config.schema import ModelConfig
from ladder_cli.data.chat import PromptRenderer
from ladder_cli.generate.backbones import Backbones
from ladder_cli.generate.batching import render_prompt
from ladder_cli.generate.trained import TrainedRun
from ladder_cli.generate.transformers_engine import generate
from ladder_cli.methods.lora import attach
from ladder_cli.nn.adapter import AdapterFolder
from ladder_cli.nn.connections import connect
from ladder_cli.nn.ladder import LadderModel
from ladder_cli.run.directory import RunDir
from ladder_cli.serve.conversation import Conversation, Voice
from ladder_cli.trunk.loading import load_backbone

MODEL = ModelConfig(name="tiny", path="builtin:tiny", dtype="float32")
DECODE = DecodeConfig(max_new_tokens=24)
QUESTION = "Compute 17+4*2 from left to right."


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Adapters that say something else than the backbone, by name."""
    home = tmp_path_factory.mktemp("adapters")
    for name in ("ladder", "other", "lora"):
        torch.manual_seed(len(name))
        backbone = load_backbone(MODEL, torch.device("cpu"))
        made = attach(backbone, 4, 8, 0.0, False) if name == "lora" else LadderModel.on(backbone, connect(6, "last"), 2)
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter.data += (0.02 if name == "lora" else 0.2) * torch.randn_like(parameter)
        made.save_pretrained(home / name)
    return {name: AdapterFolder.open(home / name) for name in ("ladder", "other", "lora")}


@pytest.fixture
def chat(folders):
    """A conversation with some of the adapters."""

    def make(*names, instruction="Think.", **options):
        backbone = Backbones("cpu").of(MODEL)
        renderer = PromptRenderer(backbone.tokenizer, instruction)
        voices = [
            Voice(name, renderer, TrainedRun(RunDir(name), folders[name], MODEL, backbone, renderer)) for name in names
        ]
        return Conversation(backbone, voices or [Voice("tiny", renderer)], DECODE, **options)

    return make


def said(conversation, question):
    pieces = []
    answer = conversation.ask(question, pieces.append)
    assert "".join(pieces) == answer.completion.text
    return answer.completion.text


@pytest.mark.parametrize("name", ["ladder", "lora"])
def test_the_first_question_is_rendered_and_answered_as_in_an_evaluation(chat, name):
    conversation = chat(name)
    renderer = conversation.active.renderer
    model = conversation.active.trained.backbone.with_adapter(conversation.active.trained.adapter)
    prompt = render_prompt("any", QUESTION, renderer)
    assert renderer.prompt_text("", conversation.messages(QUESTION)) == prompt.text
    ((expected,),) = generate(model, renderer, [[prompt]], DECODE, seed=0)
    assert said(conversation, QUESTION) == expected.text


def test_what_was_said_stands_in_the_next_prompt_until_it_is_forgotten(chat):
    conversation = chat("ladder", system="Be brief.")
    first = said(conversation, QUESTION)
    assert conversation.messages("And 2?") == (
        ("system", "Be brief."),
        ("user", f"{QUESTION}\nThink."),
        ("assistant", first),
        ("user", "And 2?\nThink."),
    )
    conversation.reset()
    assert conversation.messages("And 2?") == (("system", "Be brief."), ("user", "And 2?\nThink."))


def test_adapters_and_the_backbone_take_turns(chat):
    alone = said(chat(), QUESTION)
    expected = {name: said(chat(name), QUESTION) for name in ("ladder", "other", "lora")}
    assert len({alone, *expected.values()}) == 4
    conversation = chat("ladder", "other", "lora")
    for name in ("lora", "ladder", "other", "ladder"):
        conversation.choose(name)
        conversation.reset()
        assert said(conversation, QUESTION) == expected[name]
        conversation.switch(False)
        conversation.reset()
        assert said(conversation, QUESTION) == alone
    with pytest.raises(UserError, match=r"named 'othr'. Did you mean 'other'\? There are: ladder, other, lora"):
        conversation.choose("othr")


@pytest.mark.parametrize("name", ["ladder", "lora"])
def test_a_comparison_asks_both_and_keeps_nothing(chat, name):
    conversation = chat(name)
    both = conversation.compare(QUESTION)
    assert {key: each.completion.text for key, each in both.items()} == {
        "backbone": said(chat(), QUESTION),
        name: said(chat(name), QUESTION),
    }
    assert conversation.turns == ()


def test_the_backbone_alone_has_no_adapter_to_switch_or_compare(chat):
    for act in (lambda chat: chat.switch(True), lambda chat: chat.compare(QUESTION)):
        with pytest.raises(UserError, match="start with run=DIR"):
            act(chat())


def test_a_stopped_answer_is_kept_as_far_as_it_was_said_and_one_without_a_word_is_not(chat):
    conversation = chat("ladder")
    whole = said(chat("ladder"), QUESTION)
    shown = []
    conversation.ask(QUESTION, shown.append, lambda: len(shown) > 2)
    ((question, kept),) = conversation.turns
    assert question == QUESTION
    assert kept == "".join(shown)
    assert whole.startswith(kept)
    assert kept != whole


def test_a_chat_that_has_outgrown_the_model_says_so_and_keeps_what_was_said(chat):
    conversation = chat("ladder")
    said(conversation, QUESTION)
    turns = conversation.turns
    with pytest.raises(UserError, match=r"tokens, and the model positions for 4096: /reset"):
        conversation.ask("7+" * 3000, lambda piece: None)
    assert conversation.turns == turns
    almost = "7" * (4096 - 60)
    answer = conversation.ask(almost, lambda piece: None)
    assert answer.completion.tokens < DECODE.max_new_tokens or answer.cut
