"""Training runs side by side on one pass over the backbone, from rows that are ready to their adapters.

Each has its own learner and directory. What goes wrong in one ends that one; what goes wrong in what they share ends
all of them.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from operator import or_

from rich.console import Console

from ladder_cli.config.choices import CacheMode
from ladder_cli.config.compose import as_dict
from ladder_cli.config.options import flat
from ladder_cli.data.passes import ValidationBatches
from ladder_cli.data.preview import print_example
from ladder_cli.distributed import main_first
from ladder_cli.errors import Interrupted
from ladder_cli.plan.together import print_together
from ladder_cli.train.learner import Learner
from ladder_cli.train.loop import Loop, Steps
from ladder_cli.train.member import Member
from ladder_cli.train.monitor import Measures, Spent
from ladder_cli.train.resume import local_weights
from ladder_cli.train.rewards import reward_of
from ladder_cli.train.rollouts import Asking, CompletionsLog, Rollouts
from ladder_cli.train.sampler import Sampling, sampler
from ladder_cli.train.sharing import Sharing
from ladder_cli.train.signals import StopOnSignal
from ladder_cli.trunk.base import Trunk
from ladder_cli.trunk.open import open_trunk, open_upper
from ladder_cli.trunk.parts import keep_differentiable

_LONGEST_NAME = 60  # that is told from others at a glance


class Group:
    """The steps from rows to adapters: build, announce, fit."""

    def __init__(self, sharing: Sharing, console: Console) -> None:
        self._sharing, self._members, self._console = sharing, list(sharing.members), console
        self._several = len(self._members) > 1
        self._names = short_names(self._members) if self._several else [""]
        self._continued_at, self._reading = self._members[0].continued_at, sharing.reading

    def run(self) -> None:
        """Train.

        Raises:
            Interrupted: after a signal, with a checkpoint of each run that is not done.
        """
        job = self._members[0].job
        self._measures, stop = Measures(job.device, self._console), StopOnSignal()
        with self._common():
            trunk = self._open()
            self._build(trunk)
            if not self._left():
                return
            self._announce(trunk)
            with stop:
                self._fit(trunk, stop)
        if stop.received is None:
            return
        if left := self._left():
            interrupted = Interrupted(f"saved at step {self._loop.step}; the same command continues from there.")
            for member in left:
                member.stop(interrupted)
            raise interrupted
        # Too late for these, but of a sweep the others have not begun.
        failed = [member for member in self._members if member.failure is not None]
        for member in failed:
            self._console.print(f"failed: {member.run.path}: {member.failure}", markup=False, soft_wrap=True)
        if failed:
            raise Interrupted(f"of {len(self._members)} run(s) {len(failed)} had failed by then, and are not done.")
        if self._several:
            raise Interrupted("these runs were at their last steps and are done.")
        raise Interrupted("this run was at its last step and is done.")

    def _left(self) -> list[Member]:
        return [member for member in self._members if not member.is_over]

    @contextlib.contextmanager
    def _common(self) -> Iterator[None]:
        """What goes wrong within ends all runs that are left."""
        try:
            yield
        except Exception as failure:
            for member in self._left():
                with member.alone():
                    raise failure
        except BaseException as error:
            for member in self._left():
                member.cut_off(error)
            raise

    def _open(self) -> Trunk:
        """The backbone as it is read."""
        first, sharing = self._members[0], self._sharing
        trunk = self._opened(first)
        # 4-bit layers compute alike, and exactly as they are stored, wherever they are (docs/decisions/0019).
        keep_differentiable(trunk.whole())
        with main_first():
            # Now, when a model of the hub is here, and as the commit that was loaded.
            trunk.identity = local_weights(first.config, getattr(trunk.whole().config, "_commit_hash", None))
        if self._reading.cache is not CacheMode.OFF and self._reading.store is None:
            # Of the hub, and here only now.
            steps = max(member.job.steps(sharing.data.passed) for member in self._members)
            self._reading = first.job.reading(sharing.data, trunk.identity, sharing.shape, steps)
        return self._reading.over(trunk)

    def _opened(self, first: Member) -> Trunk:
        reading = self._reading
        if reading.absent:
            kept = reading.layers - reading.absent
            return open_upper(first.config.model, first.job.device, kept, first.job.trunk_kind, first.config.trunk)
        return open_trunk(first.config.model, first.job.device, first.job.trunk_kind, first.config.trunk)

    def _build(self, trunk: Trunk) -> None:
        """Attach what each run trains, and tell it apart from other runs."""
        sharing = self._sharing
        for member in self._members:
            with member.alone():
                # A method may put its parts into the backbone; the one that serves all of them stays bare.
                own = trunk.view() if self._several else trunk
                member.build(own, sharing.data, sharing.memory, self._reading, sharing.order_of_seed)

    def _announce(self, trunk: Trunk) -> None:
        left, console, data = self._left(), self._console, self._sharing.data
        names = [name for name, member in zip(self._names, self._members, strict=True) if not member.is_over]
        requests = [request for member in left if (request := member.model.request) is not None]
        shared_pass = round(trunk.cost(reduce(or_, requests)).flops_per_token) if requests else 0
        print_together([member.plan for member in left], names, shared_pass, console)
        console.print(
            "first example (counted tokens [bold green]marked[/]; without colours: between » and «)", markup=True
        )
        print_example(data, 0, console)

    def _fit(self, trunk: Trunk, stop: StopOnSignal) -> None:
        """Train all to their ends or to a signal."""
        data, measures = self._sharing.data, self._measures
        members: dict[Learner, Member] = {}
        beside = [member.run.path.name for member in self._left()] if self._several else []
        for name, member in zip(self._names, self._members, strict=True):
            if not member.is_over:
                with member.alone():
                    members[member.start(data, measures, beside, name)] = member

        def ended(learner: Learner, failure: Exception | None) -> None:
            member = members[learner]
            if failure is None:
                member.finish(data, self._loop, measures)
                return
            with member.alone():
                raise failure

        job = self._members[0].job
        with contextlib.ExitStack() as until_done:
            batches, validation, spent = self._passes(members, until_done)
            self._loop = Loop(
                list(members), batches, validation, job.device, stop, measures.throughput, trunk, ended, spent
            )
            if self._continued_at is not None:
                self._loop.resume(self._continued_at)
            try:
                self._loop.run()
            finally:
                if self._reading.store is not None:
                    self._reading.store.flush()

    def _passes(
        self, members: dict[Learner, Member], until_done: contextlib.ExitStack
    ) -> tuple[Steps, ValidationBatches | Callable[[], dict[str, float]], Spent | None]:
        """What is trained on, what it is validated by, and where seconds are told: rows, or what a learner samples."""
        job, data, order = self._members[0].job, self._sharing.data, self._sharing.order_of_seed
        config, objective = job.config, job.config.objective
        if not objective.samples or not members:
            return *job.batches(data, order), None
        ((learner, member),) = members.items()
        spent = Spent()
        engine = sampler(Sampling(config, member.run, data, learner.model, job.device, spent, until_done))
        reward = until_done.enter_context(reward_of(objective))
        asking = Asking(config, data, learner.model, engine, reward, spent, job.sampled_at_a_time)
        log = CompletionsLog(member.run.completions)
        rollouts = Rollouts(config, asking, job.effective_batch, order, log, learner.note)
        return rollouts, asking.validate, spent


def short_names(members: Sequence[Member]) -> list[str]:
    """A name for each run: the options in which they differ, those of a method among the runs of that method."""
    kinds = [member.config.method.name for member in members]
    values = [
        {key: value for key, value in flat(as_dict(member.config)).items() if key != "output_dir"} for member in members
    ]
    names = []
    for kind, own in zip(kinds, values, strict=True):
        alike = [other for name, other in zip(kinds, values, strict=True) if name == kind]
        differing = [
            key
            for key, value in own.items()
            if any(other.get(key) != value for other in (alike if key.startswith("method.") else values))
        ]
        parts = [f"{key.rpartition('.')[2]}={own[key]}" for key in differing]
        names.append(" ".join([*([kind] if len(set(kinds)) > 1 else []), *parts]))
    if len(set(names)) == len(names) and max(map(len, names)) <= _LONGEST_NAME:
        return names
    return [member.run.path.name for member in members]
