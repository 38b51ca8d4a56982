"""Options that cannot be."""

from pathlib import Path

from tests.malformed import Case

_TRAIN = [
    "model=", "model=tinyy", "model=../tiny", "model=tiny,tiny", "model.path=/dev/null", "model.path=~nobody/x",
    "model.path=builtin:nothing", "model.path=builtin:../../conf", "model.dtype=float128", "model.dtype=8",
    "model.quantization=int4", "model.quantization=true", "model.side_reduction=0", "model.side_reduction=1.5",
    "model.name=[1]", "model.learning_rate_scale=fast", "model.trust_remote_code=perhaps", "model.nothing=1",
    "method=lader", "method=ladder,qlora", "method.kind=lora", "method.reduction=-1", "method.reduction=r",
    "method.layers=0", "method.layers=2.5", "method.delta=0", "method.gate=sumsum", "method.combine=both",
    "method.projection=fulll", "method.init=zeros", "method.connections=middle", "method.connections=[[1,1],[2]]",
    "method.connections=[[0,1]]", "method.connections=[[99,1]]",
    "method.connections=[[1,1],[1,1]]", "method.connections={1:1}", "method.connections=[[1,'2']]",
    "method.connections=7", "method.projection_rank=0", "method.rank=4", "method.init_samples=0",
    "data=arithmetics", "data.max_length=0", "data.max_length=seven", "data.truncation=middle",
    "data.train_samples=0", "data.train_samples=-5", "data.validation_samples=0", "data.max_length=9",
    "data.packing=2.5", "data.instruction=[a]", "data.instruction={a:1}", "data.names=x",
    "hardware=tpu", "hardware.device=gpu", "hardware.workers=-1", "hardware.micro_batch_size=0",
    "hardware.memory_gb=much", "train.max_steps=0", "train.max_steps=-1", "train.max_steps=1e3.5",
    "train.max_steps=9999999999999999999999x", "train.epochs=-1", "train.epochs=nan", "train.epochs=inf",
    "train.learning_rate=-1e-3", "train.learning_rate=nan", "train.learning_rate=inf", "train.learning_rate=2",
    "train.micro_batch_size=3", "train.gradient_accumulation=0", "train.scheduler=cosin", "train.optimizer=sgd",
    "train.warmup_ratio=1.5", "train.weight_decay=-1", "train.max_grad_norm=-1", "train.max_grad_norm=nan",
    "train.evaluations=0", "train.early_stopping=0", "train.logging_steps=0", "train.loss_chunk=0",
    "train.loss_chunk=[1,2]", "train=fast", "tracking.wandb=maybe", "tracking=on", "seed=-1", "seed=4294967296",
    "seed=pi", "resume=no!", "data_dir=/nowhere", "data_dir=/dev/null", "output=here", "+new.option=1",
    "=5", "seed", "seed==", "train.max_steps=[", "train.max_steps={", "'", "\\", "${oc.env:HOME}",
    "seed=${oc.env:HOME}", "seed=${nothing}", "data.instruction=${oc.env:LADDER_NO_SUCH_VARIABLE}", "--seed=1", "-x",
    "model.hub_id=https://user:password@example.org/model", "data_dir=ftp://me:secret@example.org/x",
    "train.epochs=0", "data_dir=/no=where", "data_dir=/no [where]", "model.path=/é,ü", "model.path=~no-such-user/x",
    "model.path=2026_11_25", "seed=é", "method.connections=[[1,é]]",
    "data.instruction=hf_abcdefghijklmnopqrstuvwxyzABCD", "experiment=nothing",
]  # fmt: skip
_EVALUATE = [
    "benchmarks=[]", "benchmarks={a:1}", "benchmarks=[math5000]", "benchmarks=[../../etc/passwd]", "benchmarks=5",
    "benchmarks=[[math500]]", "benchmarks=[null]", "limit=0", "limit=-1", "limit=few", "decode.max_new_tokens=0",
    "decode.batch_size=0", "decode.temperature=-1", "decode.temperature=nan", "decode.top_p=0", "decode.top_p=2",
    "decode.grade_seconds=0", "decode.grade_seconds=forever", "run=nowhere", "run=/dev/null", "run='*'", "run=[a,b]",
    "completions=nowhere.jsonl", "completions=/é=[1].jsonl", "run=/no=where", "benchmarks=[é]", "run=2026_11_25",
    "completions=~no-such-user/x.jsonl",
    "completions=/", "decode.beams=4", "model=gpt5", "benchmarks=[math500] data_dir=/",
]  # fmt: skip


def _case(command: str, words: str) -> Case:
    def arguments(folder: Path, runs: Path) -> list[str]:
        options = words.split(" ") if words.startswith("benchmarks=[math500]") else [words]
        if words.startswith("method."):
            options = ["method=ladder", *options]
        quick = ["dry_run=true", "data.train_samples=16"] if command == "train" else []
        quick = [word for word in quick if word.partition("=")[0] != words.partition("=")[0]]
        where = [] if words.startswith("output") else [f"output_dir={folder / 'out'}"]
        return [*options, *quick, *where]

    return Case(f"{command} {words}", command, arguments)


CASES = [_case("train", words) for words in _TRAIN] + [_case("evaluate", words) for words in _EVALUATE]
