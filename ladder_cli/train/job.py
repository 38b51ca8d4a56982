"""Everything that is decided about a run, decided once."""

from dataclasses import dataclass

import torch

from ladder_cli.config.choices import CacheMode, EngineKind, Optimizer, Passes, Residency
from ladder_cli.config.objective import check_objective
from ladder_cli.config.sampling import check_sampling
from ladder_cli.config.schema import TrainConfig
from ladder_cli.data.batching import PaddingCollator
from ladder_cli.data.formats import format_of, rows_each
from ladder_cli.data.passes import Loading, TrainingBatches, ValidationBatches, steps_for
from ladder_cli.data.prepare import PreparedData
from ladder_cli.errors import UserError
from ladder_cli.methods.base import Method
from ladder_cli.methods.registry import method_for
from ladder_cli.plan.page import Plan
from ladder_cli.plan.preflight import Preflight
from ladder_cli.plan.reading import Reading, Shape, settle_reading, settled_passes, tap_space
from ladder_cli.plan.streaming import Transfer, settled_residency, speeds_of
from ladder_cli.ranks import process_index, processes
from ladder_cli.run.directory import RunDir
from ladder_cli.train.learner import Pace
from ladder_cli.train.rewards import reward_of
from ladder_cli.train.sampler import check_sampler
from ladder_cli.train.trackers import check_tracking
from ladder_cli.trunk.base import WHOLE, TrainableModule, Trunk, TrunkCost
from ladder_cli.trunk.live import LiveTrunk
from ladder_cli.trunk.loading import backbone_shape, parameter_count, planned_dtype
from ladder_cli.trunk.open import KINDS, TrunkKind


@dataclass(frozen=True)
class Job:
    """A run as its config, the machine and the number of processes settle it.

    Attributes:
        config: as it was given; what stands beside it here goes before it.
        run: its directory.
        device: of this process.
        method: what is trained.
        rows_each: rows of tokens that a row of the data becomes: of a preference two.
        accumulation: micro-batches of an optimizer step, in each process.
        effective_batch: rows of the data in an optimizer step, over all processes; prompts, where it samples.
        optimizer: its name; never `auto`.
        trunk_kind: where the backbone's layers are.
        residency: the same, as `trunk.residency` says it; never `auto`.
        passes: rows go through it alone, or a micro-batch together.
    """

    config: TrainConfig
    run: RunDir
    device: torch.device
    method: Method
    rows_each: int
    accumulation: int
    effective_batch: int
    optimizer: Optimizer
    trunk_kind: TrunkKind
    residency: Residency
    passes: Passes

    @classmethod
    def settle(cls, config: TrainConfig, run: RunDir, device: torch.device) -> "Job":
        """Decide.

        Raises:
            UserError: for batches that do not add up, rows or a method that the objective does not go with, a tracker
                that is not installed, or a backbone that cannot be read as it is asked.
        """
        check_objective(config.objective, config.method, format_of(config.data), config.data.packing)
        check_sampling(config)
        if config.objective.samples:
            reward_of(config.objective)  # a function that is not there is told before anything is loaded
            check_sampler(config)
        check_tracking(config.tracking)
        residency = _residency(config, device)
        sharded = config.hardware.shard_backbone
        accumulation = config.train.accumulation(processes())
        return cls(
            config,
            run,
            device,
            method_for(config.method),
            rows_each(config.data),
            accumulation,
            config.train.micro_batch_size * accumulation * processes() // config.objective.completions_each,
            config.train.optimizer.on(device.type),
            TrunkKind.SHARDED if sharded else KINDS[residency],
            residency,
            settled_passes(config.trunk, device.type, sharded),
        )

    @property
    def sampled_at_a_time(self) -> int | None:
        """Completions that are generated together; None: as many as the engine's memory holds."""
        objective = self.config.objective
        own = objective.engine is EngineKind.TRANSFORMERS
        return objective.sample_batch or (self.effective_batch * objective.group if own else None)

    def steps(self, rows: int) -> int:
        """Optimizer steps over so many training rows."""
        return steps_for(rows, self.effective_batch, self.config.train.epochs, self.config.train.max_steps)

    def check_patience(self, rows: int) -> None:
        """Refuse early stopping that could not act over so many training rows.

        Raises:
            UserError: if it is that.
        """
        Pace.of(self.config.train, self.steps(rows)).check_patience()

    def shape(self) -> Shape:
        """What it reads of the backbone, found on shapes alone.

        Raises:
            UserError: if the method does not fit the backbone.
        """
        dtype = planned_dtype(self.config.model, self.device)
        with torch.device("meta"):
            trunk = LiveTrunk(backbone_shape(self.config.model, dtype))
            request = self.method.shape(trunk, self.config.objective.refers).request
        layers = len(trunk.parts.layers)
        return Shape(request, self.method.layers_needed(layers), layers, trunk.parts.config.hidden_size, dtype)

    def reading(
        self,
        data: PreparedData | None,
        weights: str | None,
        shape: Shape | None = None,
        steps: int | None = None,
    ) -> Reading:
        """How the rows are read of the backbone.

        Args:
            data: None where it cannot be had here.
            weights: their identity; None where they are not on this machine.
            shape: what is read; None: what this run alone reads.
            steps: over how many; None: of this run.

        Raises:
            UserError: where a cache is asked for and cannot be, or the method does not fit the backbone.
        """
        config, dtype = self.config, planned_dtype(self.config.model, self.device)
        if shape is None:
            shape = self.shape() if config.trunk.cache is not CacheMode.OFF else Shape(None, 0, 0, 0, dtype)
        if steps is None:
            steps = self.steps(data.passed) if data is not None else config.train.max_steps
        space = None
        if weights is not None:
            space = tap_space(config, weights, dtype, self.device.type, self.passes)
        sharded = self.trunk_kind is TrunkKind.SHARDED
        batch = self.effective_batch * self.rows_each
        return settle_reading(config, self.passes, sharded, shape, data, steps, batch, space)

    def plan(
        self,
        data: PreparedData | None,
        trunk: Trunk,
        model: TrainableModule,
        dtype: torch.dtype,
        memory: Preflight,
        reading: Reading,
    ) -> Plan:
        """What is about to be done, for the page that is printed.

        Args:
            data: None where it cannot be had here.
            model: what the method attached to `trunk`; may be without values.
            dtype: that the backbone computes in.
            memory: what a step takes.
            reading: how `trunk` is read.
        """
        config, cost = self.config, trunk.cost(model.request or WHOLE)
        trainable = parameter_count(model, trained=True)
        return Plan(
            method=config.method.name,
            model=config.model.name,
            quantization=config.model.quantization,
            device=str(self.device),
            dtype=str(dtype).removeprefix("torch."),
            backbone_parameters=cost.parameters,
            trainable_parameters=trainable,
            data_name=config.data.name,
            data=data,
            steps=self.steps(data.passed) if data is not None else config.train.max_steps,
            effective_batch=self.effective_batch,
            micro_batch=config.train.micro_batch_size,
            accumulation=self.accumulation,
            learning_rate=config.peak_learning_rate,
            flops_per_token=self.method.cost(cost, config.objective.refers).flops_per_token(trainable),
            memory=memory,
            reading=reading,
            pass_per_token=round(cost.flops_per_token) if model.request is not None else 0,
            transfer=self._transfer(cost, trainable, memory),
        )

    def _transfer(self, cost: TrunkCost, trainable: int, memory: Preflight) -> Transfer | None:
        """What streaming the layers costs; None where they stay."""
        if self.residency is Residency.RESIDENT:
            return None
        step, flops = memory.step, self.method.cost(cost, self.config.objective.refers).flops_per_token(trainable)
        rows = 1 if self.passes is Passes.ROW else step.rows
        return Transfer(
            self.residency,
            memory.prediction.moved,
            self.accumulation * step.rows // rows,
            rows * step.tokens,
            cost.flops_per_token,
            float(flops["actual"]),
            speeds_of(self.config.hardware, self.device, self.residency),
        )

    def batches(self, data: PreparedData, order_of_seed: int) -> tuple[TrainingBatches, ValidationBatches]:
        """What this process trains on, in the order that a seed gives, and is validated on."""
        loading = Loading(
            PaddingCollator(data.tokenizer.pad_token_id),
            self.config.train.micro_batch_size * self.rows_each,
            process_index(),
            processes(),
            self.config.hardware.workers,
            self.device.type == "cuda",
            self.rows_each,
        )
        training = TrainingBatches(data.train_rows, loading, self.accumulation, order_of_seed)
        return training, ValidationBatches(data.validation, loading)


def _residency(config: TrainConfig, device: torch.device) -> Residency:
    """Where the layers will be while they do not compute.

    Raises:
        UserError: if they are to be streamed, and cannot.
    """
    if config.hardware.shard_backbone and config.trunk.residency is not Residency.RESIDENT:
        raise UserError(
            f"hardware.shard_backbone=true holds the layers in several processes, and trunk.residency="
            f"{config.trunk.residency} streams them: leave one out."
        )
    return settled_residency(config, device)
