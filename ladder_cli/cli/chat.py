"""`ladder-chat`: a trained run, asked in a terminal, or once for a script."""

import sys
from pathlib import Path

from ladder_cli import hub
from ladder_cli.cli import main as cli
from ladder_cli.config.compose import given_options
from ladder_cli.config.unread import refuse_unread_model
from ladder_cli.config.using import ChatConfig
from ladder_cli.errors import UserError
from ladder_cli.ranks import processes
from ladder_cli.run.directory import find_runs, run_names
from ladder_cli.streams import quiet_libraries

HELP = """ladder-chat: ask what was trained.

  ladder-chat run=DIR [prompt="..."] [key=value]

  ladder-chat run=outputs/ladder-tiny-arithmetic                           a chat; /help lists its commands
  ladder-chat run='outputs/*-tiny-arithmetic'                              adapters of one backbone: /adapter NAME
  ladder-chat run=outputs/ladder-tiny-arithmetic prompt="Compute 1+1."     one answer on standard output, for scripts
  ladder-chat model=qwen2.5-math-1.5b-instruct                             a backbone alone

prompt=- reads the question from standard input. Questions are rendered as in training.
Often used: decode.max_new_tokens, decode.temperature, decode.stop, system, seed, model.path, hardware=cpu.
`ladder-chat --cfg job` prints every option with its value; docs/options.md says what each is. See docs/serving.md.

"""
_STDIN = "-"


def no_place(config: ChatConfig, overrides: list[str]) -> Path:
    """A chat writes nothing."""
    return Path(".")


def chat(config: ChatConfig, overrides: list[str]) -> None:
    """Chat, or answer once.

    Raises:
        UserError: for whatever is wrong with the options or the run.
    """
    given = given_options(overrides)
    config.refuse_unread(given)
    if processes() > 1:
        raise UserError("a chat is of one process: start it without torchrun.")
    runs = find_runs(config.run) if config.run is not None else []
    if not runs:
        cli.check_folders(config.model, None)
        refuse_unread_model(config.model, given)
        if config.model.path is None:
            hub.require_model(config.model.name, config.model.location, config.model.revision)
    question = _question(config.prompt)
    if question is not None and len(runs) > 1:
        raise UserError(f"prompt= is answered once, and run={config.run} names {len(runs)} runs: name one of them.")
    quiet_libraries(downloads=not runs and config.model.path is None)
    from ladder_cli.cli.terminal import Terminal, show
    from ladder_cli.data.chat import PromptRenderer
    from ladder_cli.generate.backbones import Backbones
    from ladder_cli.generate.trained import Permission, TrainedRun
    from ladder_cli.serve.conversation import Conversation, Voice

    backbones = Backbones(config.hardware.device)
    if runs:
        instruction = config.instruction if "instruction" in given else None
        permission = Permission(config.allow_prompt_mismatch, config.allow_other_backbone)
        names = run_names(runs)
        opened = [TrainedRun.open(run, backbones, config.model, overrides, instruction, permission) for run in runs]
        backbone, name = opened[0].backbone, opened[0].model.name
        for other in opened:
            if other.backbone is not backbone:
                raise UserError(
                    f"{other.run.path} stands on another backbone, or on the same otherwise loaded, than "
                    f"{opened[0].run.path}: chat with each alone."
                )
        voices = [Voice(names[each.run.path], each.renderer, each) for each in opened]
    else:
        backbone, name = backbones.of(config.model), config.model.name
        voices = [Voice(name, PromptRenderer(backbone.tokenizer, config.instruction))]
    conversation = Conversation(backbone, voices, config.decode, config.seed, config.system)
    conversation.load()
    if question is None:
        Terminal(conversation, name).run()
        return
    # A terminal gets it as it grows and without what it would obey; a pipe gets the text as it is.
    live = sys.stdout.isatty()
    answer = conversation.ask(question, show if live else lambda piece: None)
    print("" if live else answer.completion.text, flush=True)
    if answer.cut:
        print("warning: the answer is cut at decode.max_new_tokens", file=sys.stderr)


def _question(prompt: str | None) -> str | None:
    """What is asked once; None for a chat.

    Raises:
        UserError: if it is empty, or standard input is no text.
    """
    if prompt is None:
        return None
    if prompt == _STDIN:
        try:
            prompt = sys.stdin.read().rstrip("\n")
        except UnicodeDecodeError as error:
            raise UserError(f"prompt=-: standard input is no {error.encoding} text.") from error
    if not prompt.strip():
        raise UserError("prompt= is empty: give a question, or leave it out to chat.")
    return prompt


def main() -> None:
    """The console script."""
    if {"-m", "--multirun"} & set(sys.argv[1:]):
        print("error: a chat is no sweep: leave out -m.", file=sys.stderr)
        sys.exit(2)
    sys.exit(cli.run("chat", ChatConfig, chat, no_place, HELP))


if __name__ == "__main__":
    main()
