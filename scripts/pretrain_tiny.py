"""Make the embedded backbone `tiny` from nothing: its tokenizer, its corpus, its weights.

    python scripts/pretrain_tiny.py --output ladder_cli/assets/tiny

The corpus teaches three skills, none of which is the task of `data=arithmetic`:

* equations with two operands (`27+18=45`), in random order and never chained;
* questions of ONE step in the words of the task, answered by one equation and a box;
* expressions of several steps to be repeated (train split only), so that long ones are not foreign.

So the backbone knows every fact and every word, and has never seen a second step follow a first. To a question of
several steps it writes one equation and stops, mostly wrong. Fine-tuning closes this gap.
"""

import argparse
import random
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, Trainer, TrainingArguments

from ladder_cli.data.arithmetic import LARGEST_VALUE, draw
from ladder_cli.data.chat import DEFAULT_INSTRUCTION

VOCABULARY = 576
SEQUENCE = 128
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL_TOKENS = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]


def equations(rng: random.Random) -> tuple[str, str]:
    """Six unrelated two-operand equations."""
    return "", "\n".join(draw(rng, (1,)).equations[0] for _ in range(6)) + "<|end|>"


def one_step_question(rng: random.Random) -> tuple[str, str]:
    """A question of one step, answered by one equation and the box."""
    problem = draw(rng, (1,))
    prompt = f"<|user|>{problem.question}\n{DEFAULT_INSTRUCTION}<|end|><|assistant|>"
    return prompt, f"{problem.equations[0]}\nThe answer is \\boxed{{{problem.answer}}}.<|end|>"


def repetition(rng: random.Random) -> tuple[str, str]:
    """An expression of several steps (train split) to be repeated, not evaluated."""
    while (problem := draw(rng, (2, 3, 4))).split != "train":
        pass
    return f"<|user|>Repeat {problem.expression}.<|end|><|assistant|>", f"{problem.expression}<|end|>"


def corpus(seed: int) -> Iterator[tuple[str, str]]:
    """An endless stream of (prompt, completion)."""
    rng = random.Random(seed)
    kinds = {equations: 2, one_step_question: 4, repetition: 4}
    while True:
        yield rng.choices(list(kinds), weights=list(kinds.values()))[0](rng)


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on the corpus, in which the task's numbers are one token each; any text can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    documents = corpus(seed)
    tokenizer.train_from_iterator(("".join(next(documents)) for _ in range(5_000)), trainer)
    # Added tokens, since Transformers puts Qwen2's own digit splitting in place of any other on load.
    tokenizer.add_tokens([AddedToken(str(number), normalized=False) for number in range(LARGEST_VALUE + 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        additional_special_tokens=SPECIAL_TOKENS[2:],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )


def token_blocks(tokenizer: PreTrainedTokenizerFast, count: int, seed: int) -> list[dict[str, torch.Tensor]]:
    """Documents end to end, cut into blocks of SEQUENCE tokens; prompts do not count for the loss.

    The numbers of prompts are random: predicting them teaches nothing and drowns the useful gradient.
    """
    documents, ids, labels = corpus(seed), [], []
    while len(ids) < count * SEQUENCE:
        prompt, completion = next(documents)
        prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        completion_ids = tokenizer(completion, add_special_tokens=False)["input_ids"]
        ids += prompt_ids + completion_ids
        labels += [-100] * len(prompt_ids) + completion_ids
    shape = (count, SEQUENCE)
    rows = (torch.tensor(values[: count * SEQUENCE]).view(shape) for values in (ids, labels))
    return [{"input_ids": row, "labels": row_labels} for row, row_labels in zip(*rows, strict=True)]


def architecture(tokenizer: PreTrainedTokenizerFast) -> Qwen2Config:
    """Six Qwen2 layers of width 192: 2.5 million parameters, 5 MB in bfloat16."""
    return Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        # 1 / sqrt(width). At the usual 0.02 a network this narrow does not learn to copy in any time worth waiting.
        initializer_range=0.07,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )


def main() -> None:
    """Train and write config, tokenizer and bfloat16 weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the finished model")
    parser.add_argument("--work", type=Path, default=Path("outputs/pretrain_tiny"), help="folder for checkpoints")
    parser.add_argument("--tokens", type=int, default=2_500_000, help="tokens to train on")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    tokenizer = train_tokenizer(args.seed)
    blocks = token_blocks(tokenizer, args.tokens // SEQUENCE, args.seed)
    model = Qwen2ForCausalLM(architecture(tokenizer))
    print(f"{model.num_parameters():,} parameters, {len(blocks) * SEQUENCE:,} tokens")
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(args.work),
            per_device_train_batch_size=16,
            num_train_epochs=1,
            learning_rate=1.5e-3,
            lr_scheduler_type="cosine",
            warmup_steps=0.03,
            weight_decay=0.05,
            adam_beta2=0.98,
            max_grad_norm=1.0,
            bf16=True,
            use_cpu=not torch.cuda.is_available(),
            logging_steps=50,
            save_steps=500,
            save_total_limit=1,
            seed=args.seed,
        ),
        train_dataset=blocks,
    )
    trainer.train(resume_from_checkpoint=any(args.work.glob("checkpoint-*")))
    model.to(torch.bfloat16).save_pretrained(args.output)
    tokenizer.save_pretrained(args.output)


if __name__ == "__main__":
    main()
