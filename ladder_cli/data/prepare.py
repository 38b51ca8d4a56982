"""Makes rows for training from a composed config: loads, cleans, renders, tokenises."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from ladder_cli.config.choices import Learn, RowFormat
from ladder_cli.config.schema import ModelConfig, TrainConfig
from ladder_cli.data.batching import PackedRows
from ladder_cli.data.benchmarks import all_questions
from ladder_cli.data.chat import PromptRenderer
from ladder_cli.data.encoding import EncodedSet, encode, writable_cache
from ladder_cli.data.examples import Splits
from ladder_cli.data.formats import format_of
from ladder_cli.data.overlap import without
from ladder_cli.data.registry import load_examples
from ladder_cli.errors import UserError
from ladder_cli.run.directory import TOKEN_CACHE
from ladder_cli.trunk.loading import architecture, load_tokenizer


@dataclass(frozen=True)
class Source:
    """Examples and what renders them: all that identifies the data of a run, before anything is tokenised.

    Attributes:
        decontaminated: examples that were left out because a benchmark asks them too.
    """

    tokenizer: PreTrainedTokenizerBase
    renderer: PromptRenderer
    splits: Splits
    decontaminated: int = 0


@dataclass(frozen=True)
class PreparedData:
    """Tokenised rows, the rendering that made them, and the examples they came from.

    Attributes:
        train, validation: examples as tokens.
        train_rows: what the trainer reads: `train`, or packed rows of it.
        lengths: tokens of each of `train_rows`.
        decontaminated: examples that were left out because a benchmark asks them too.
        notes: warnings for the plan: a split that leaks, fewer rows than asked for, end tokens that rows bring
            themselves, a cache that cannot be written.
    """

    tokenizer: PreTrainedTokenizerBase
    renderer: PromptRenderer
    splits: Splits
    train: EncodedSet
    validation: EncodedSet
    train_rows: EncodedSet | PackedRows
    decontaminated: int = 0
    notes: tuple[str, ...] = ()

    @property
    def lengths(self) -> Sequence[int]:
        """Return the tokens of each row that the trainer reads."""
        return self.train_rows.lengths

    @property
    def passed(self) -> int:
        """Return how many examples, or rows that several are packed into, an epoch passes."""
        return len(self.train_rows) // self.train.rows_each

    def ids(self, row: int) -> list[str]:
        """Return the ids of the examples in a row that the trainer reads; a packed row has several."""
        members = self.train_rows.members[row] if isinstance(self.train_rows, PackedRows) else [row]
        return [self.splits.train[self.train.kept[member]].id for member in members]

    @property
    def longest(self) -> int:
        """Return the tokens of the longest row of either split."""
        return max(*self.lengths, *self.validation.lengths)

    @property
    def fingerprint(self) -> str:
        """A hash of the examples."""
        return self.splits.fingerprint


def load_source(config: TrainConfig) -> Source:
    """Load and clean the examples, and load what renders them.

    Raises:
        UserError: for whatever is wrong with model, data or lengths.
    """
    data = config.data
    splits = load_examples(data, config.data_dir, config.seed)
    removed = 0
    if data.decontaminate:
        questions, unreachable = all_questions(config.data_dir, download=True)
        if unreachable:
            raise UserError(
                f"data.decontaminate=true needs every benchmark, and cannot read {', '.join(unreachable)}: give a "
                "mirror that has them as data_dir=DIR (scripts/prefetch.py makes one)."
            )
        splits, removed = without(splits, (q for asked in questions.values() for q in asked))
        if not splits.train or not splits.validation:
            raise UserError(f"data.decontaminate leaves no rows of data={data.name}: every question is a benchmark's.")
    tokenizer = load_tokenizer(config.model)
    return Source(tokenizer, PromptRenderer(tokenizer, data.instruction, data.date), splits, removed)


def prepare_data(config: TrainConfig, source: Source | None = None) -> PreparedData:
    """Load, clean, render and tokenise.

    Args:
        source: of the same config, if it is loaded already.

    Raises:
        UserError: for whatever is wrong with model, data or lengths.
    """
    data = config.data
    source = source if source is not None else load_source(config)
    renderer, splits = source.renderer, source.splits
    notes = [*splits.notes, *_end_tokens_brought(splits, renderer)]
    cache = None
    if data.cache:
        cache, note = writable_cache(TOKEN_CACHE)
        notes += [note] if note else []
    learn = Learn(data.learn) if format_of(data) is RowFormat.CHAT else Learn.LAST
    train, validation = (
        encode(examples, renderer, data.max_length, data.truncation, cache, config.hardware.workers, learn)
        for examples in (splits.train, splits.validation)
    )
    refuse_unknown_ids(config.model, renderer, max(train.largest_id, validation.largest_id))
    rows = PackedRows(train, train.lengths, data.max_length) if data.packing else train
    return PreparedData(
        source.tokenizer, renderer, splits, train, validation, rows, source.decontaminated, tuple(notes)
    )


def _end_tokens_brought(splits: Splits, renderer: PromptRenderer) -> list[str]:
    """Return notes on end tokens in the assistant's texts: at the end, where one is written, or before it."""
    marks, brought, inside = " or ".join(renderer.end_texts), 0, 0
    for example in (*splits.train, *splits.validation):
        answers = (answer.completion for answer in example.answers)
        for text in (*answers, *(text for role, text in example.messages if role == "assistant")):
            if any(mark in text for mark in renderer.end_texts):
                kept = renderer.without_end(text)
                brought += kept != text
                inside += any(mark in kept for mark in renderer.end_texts)
    notes = []
    if brought:
        verb = "brings its" if brought == 1 else "bring their"
        notes.append(f"{brought:,} of the assistant's texts {verb} own end token ({marks}): it is written once")
    if inside:
        verb, their = ("holds", "its") if inside == 1 else ("hold", "their")
        notes.append(
            f"{inside:,} of the assistant's texts {verb} an end token ({marks}) before {their} end: what follows it is "
            "never generated"
        )
    return notes


def refuse_unknown_ids(model: ModelConfig, renderer: PromptRenderer, largest: int) -> None:
    """Refuse tokens that the backbone has no embedding for, before its weights are read.

    Args:
        largest: the largest token id of the rows; the padding token and those that end a completion are added here.

    Raises:
        UserError: naming the token and how many rows the embeddings have.
    """
    rows = int(architecture(model).get_text_config().vocab_size)
    tokenizer = renderer.tokenizer
    used = {"a token of the rows": largest, "the end token": max(renderer.stop_ids)}
    if tokenizer.pad_token_id is not None:
        used["the padding token"] = int(tokenizer.pad_token_id)
    for what, number in used.items():
        refuse_unknown_token(tokenizer, what, number, rows)


def refuse_unknown_token(tokenizer: PreTrainedTokenizerBase, what: str, number: int, rows: int) -> None:
    """Refuse a token, called `what` in the message, that embeddings of `rows` rows have no row for.

    Raises:
        UserError: naming the token and how many rows the embeddings have.
    """
    if number >= rows:
        raise UserError(
            f"{what}, {tokenizer.convert_ids_to_tokens(number)!r}, has the number {number}, and the backbone's "
            f"embeddings have {rows:,} rows (0 to {rows - 1}): the tokenizer belongs to another model, or a token "
            "was added to it and the model not resized (resize_token_embeddings)."
        )
