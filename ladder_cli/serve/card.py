"""The model card of an export: what was trained on what, its scores with their intervals, how it is loaded."""

from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from ladder_cli import __version__
from ladder_cli.config.choices import ExportFormat, Quantization
from ladder_cli.config.compose import parse
from ladder_cli.config.schema import TrainConfig
from ladder_cli.generate.trained import TrainedRun
from ladder_cli.nn.adapter import LADDER
from ladder_cli.run.credentials import redacted
from ladder_cli.run.directory import SUMMARY, read_json

CARD = "README.md"
_LADDER = """It needs `pip install ladder-side-tuning`.

```python
import ladder_cli  # makes the model type known
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{where}")
tokenizer = AutoTokenizer.from_pretrained("{where}")
```

    vllm serve {where} --dtype {dtype}    # in vLLM's environment, with `pip install --no-deps ladder-side-tuning`
"""
_MODEL = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{where}")
tokenizer = AutoTokenizer.from_pretrained("{where}")
```

    vllm serve {where} --dtype {dtype}
"""
_PEFT = """```python
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained("{where}")
tokenizer = AutoTokenizer.from_pretrained("{where}")
```

    vllm serve {base} --enable-lora --lora-modules {name}={where}
"""
_GGUF = "    llama-cli -hf {where}\n"
_LOADED = {
    (ExportFormat.VLLM, True): _LADDER,
    (ExportFormat.VLLM, False): _MODEL,
    (ExportFormat.MERGED, True): _MODEL,
    (ExportFormat.MERGED, False): _MODEL,
    (ExportFormat.PEFT, False): _PEFT,
    (ExportFormat.GGUF, True): _GGUF,
    (ExportFormat.GGUF, False): _GGUF,
}
_LIBRARY = {ExportFormat.PEFT: "peft", ExportFormat.GGUF: "gguf"}


@dataclass(frozen=True)
class Card:
    """A model card.

    Attributes:
        trained: the run.
        form: of the export.
        base: the backbone, as others find it.
        dtype: of the written weights.
        warning: what whoever uses it has to know, or None.
        where: the repository on the hub; None: the folder that holds the card.
    """

    trained: TrainedRun
    form: ExportFormat
    base: str
    dtype: str
    warning: str | None = None
    where: str | None = None

    def text(self) -> str:
        """The card in the hub's form; without credentials, whatever the run's options held."""
        config: TrainConfig = parse(self.trained.run.read_config(), TrainConfig)
        scores, metrics = self._scores(), read_json(self.trained.run.metrics)
        name = self.trained.run.path.resolve().name
        where = self.where or "."
        loaded = _LOADED[self.form, self.trained.adapter.loader == LADDER]
        parts = [
            f"---\n{self._data(config, name, scores).to_yaml()}\n---",
            f"# {name}",
            f"`{config.method.name}` on `{self.base}`, trained on `{config.data.hub_id or config.data.name}` with "
            f"[ladder-side-tuning](https://pypi.org/project/ladder-side-tuning/) {__version__}.",
            *([f"**Note.** {self.warning}"] if self.warning else []),
            "## Training",
            _table(_training(config, metrics), ("", "")),
            "## Scores",
            _table(scores, ("benchmark", "Pass@1", "95% interval", "problems", "runs"))
            if scores
            else "The run has no evaluation.",
            "## Loading",
            loaded.format(where=where, base=self.base, name=name, dtype=self.dtype),
            "## Prompt",
            "The chat template of the tokenizer, " + self._instruction(),
        ]
        return redacted("\n\n".join(part.rstrip() for part in parts) + "\n")

    def _data(self, config: TrainConfig, name: str, scores: list[tuple[str, ...]]) -> ModelCardData:
        results = [
            EvalResult(
                task_type="text-generation",
                dataset_type=benchmark,
                dataset_name=benchmark,
                metric_type="pass@1",
                metric_value=float(score),
            )
            for benchmark, score, *_ in scores
        ]
        return ModelCardData(
            base_model=self.base if "/" in self.base else None,
            datasets=[config.data.hub_id] if config.data.hub_id else None,
            library_name=_LIBRARY.get(self.form, "transformers"),
            pipeline_tag="text-generation",
            tags=["ladder-side-tuning", config.method.name],
            model_name=name,
            eval_results=results or None,
        )

    def _scores(self) -> list[tuple[str, ...]]:
        """By benchmark, as the evaluations of the run have them; none where there were none."""
        path = self.trained.run.evaluation / SUMMARY
        summary = read_json(path) if path.is_file() else {}
        return [
            (
                benchmark,
                f"{found['pass_at_1']:.4f}",
                f"{found['ci95'][0]:.4f} to {found['ci95'][1]:.4f}" if found.get("ci95") else "",
                str(found["n_problems"]),
                str(found["n_runs"]),
            )
            for benchmark, found in summary.items()
            if isinstance(found, dict) and isinstance(found.get("pass_at_1"), int | float)
        ]

    def _instruction(self) -> str:
        instruction = self.trained.renderer.instruction
        return f"with this under the question:\n\n> {instruction}" if instruction else "with nothing added."


def _training(config: TrainConfig, metrics: dict[str, Any]) -> list[tuple[str, ...]]:
    """What was done, as far as the run recorded it."""
    rows = {
        "method": config.method.name,
        "data": f"{config.data.name}, {metrics.get('rows', {}).get('train', '?')} rows",
        "backbone weights": "as they are"
        if config.model.quantization is Quantization.NONE
        else config.model.quantization,
        "trained parameters": f"{metrics['trainable_parameters']:,}" if "trainable_parameters" in metrics else None,
        "tokens seen": f"{metrics['tokens_seen']:,}" if "tokens_seen" in metrics else None,
        "kept step": metrics.get("best_step"),
        "validation loss": f"{metrics['eval_loss']:.4f}" if metrics.get("eval_loss") is not None else None,
        "validation reward": f"{metrics['eval_reward']:.4f}" if metrics.get("eval_reward") is not None else None,
        "seed": config.seed,
    }
    return [(name, str(value)) for name, value in rows.items() if value is not None]


def _table(rows: list[tuple[str, ...]], head: tuple[str, ...]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
