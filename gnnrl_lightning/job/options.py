"""The options of a job, one section for each part or component that reads them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal, get_type_hints

from gnnrl_lightning.artifacts.formats import DEFAULT_FORMATS, find_formats
from gnnrl_lightning.candidates.options import CandidateOptions
from gnnrl_lightning.candidates.short_finetune import PASSES
from gnnrl_lightning.checks import instance, real
from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.options import ScoringOptions
from gnnrl_lightning.job.stage_options import StageOptions
from gnnrl_lightning.options import AUTO, at_least, check_fields
from gnnrl_lightning.repair.table import REPAIRS
from gnnrl_lightning.rl.env.options import EpisodeOptions
from gnnrl_lightning.search.baselines import starting_count
from gnnrl_lightning.search.finals import FinalsOptions
from gnnrl_lightning.search.options import SearchOptions
from gnnrl_lightning.speed.options import LatencyOptions
from gnnrl_lightning.surrogate.measures import SENSITIVITIES
from gnnrl_lightning.training.options import TrainingOptions


@dataclass(frozen=True)
class DeliveryOptions:
    """Repair and file formats of the delivered networks.

    Args:
        repair: Repair before fine-tuning: none, predicted_batch_norm, batch_norm, reconstruction, refit, or the import
            path of your own, see `gnnrl_lightning.repair.table`.
        calibration_examples: Training examples for that repair, at most all of them; auto: 4,096, or fewer if their
            feature maps are large, see `gnnrl_lightning.candidates.pruner.default_final_examples`.
        formats: Files of the pruned network: weights, program, onnx, openvino, int8, or import paths of your own, see
            `gnnrl_lightning.artifacts.formats`. finetune, validate, test and fit read `weights`. int8 is calibrated on
            `calibration_examples`, too.
        fastest_of: Number of best candidates of a search. Of those whose primary figure on the holdout is as good as
            the best one's, the fastest on this machine is delivered, if fine-tuning follows and the budget does not
            limit the latency, see `gnnrl_lightning.job.fastest`. Times are measured, so the result does not depend on
            the seed alone. 0: the best candidate is delivered.
        largest_drop: Loss of a lossy format (int8) on the holdout above which a warning is given, as a share of the
            network's lead over guessing, in the primary figure.

    Raises:
        UserError: The repair or a format is unknown, or a number is out of range.
    """

    repair: str = "refit"
    calibration_examples: int | Literal["auto"] = "auto"
    formats: list[str] = field(default_factory=lambda: [*DEFAULT_FORMATS])
    fastest_of: int = 8
    largest_drop: float = 0.02

    def __post_init__(self) -> None:
        REPAIRS.find(self.repair, "delivery.repair")
        check_fields(self, "delivery")
        at_least("delivery", 1, auto=True, calibration_examples=self.calibration_examples)
        at_least("delivery", 0, fastest_of=self.fastest_of)
        find_formats(self.formats, "delivery.formats")
        real("delivery.largest_drop", self.largest_drop, 0, 1)


@dataclass(frozen=True)
class Options:
    """All options of a job. The sections of the YAML are named after these fields.

    Args:
        candidate: Importance, repair and calibration of candidates.
        scoring: Scoring of candidates.
        episode: Episodes of the agent.
        search: Evaluations and sensitivity of the search.
        finals: Short trainings after the search, which choose the candidate that is delivered.
        delivery: Repair and file formats of the delivered networks.
        latency: How latency is measured.
        pretraining: Training of the dense network, if it is not trained yet.
        finetuning: Fine-tuning of pruned networks, the same for uniform pruning and ours.
        stages: Larger budgets that are met first, on the way to a deep cut.

    Raises:
        UserError: Pretraining includes distillation, a surrogate lacks a sensitivity, or the agent learns for a range
            of budgets in stages.
    """

    candidate: CandidateOptions = field(default_factory=CandidateOptions)
    scoring: ScoringOptions = field(default_factory=ScoringOptions)
    episode: EpisodeOptions = field(default_factory=EpisodeOptions)
    search: SearchOptions = field(default_factory=SearchOptions)
    finals: FinalsOptions = field(default_factory=FinalsOptions)
    delivery: DeliveryOptions = field(default_factory=DeliveryOptions)
    latency: LatencyOptions = field(default_factory=LatencyOptions)
    pretraining: TrainingOptions = field(default_factory=TrainingOptions)
    finetuning: TrainingOptions = field(default_factory=TrainingOptions)
    stages: StageOptions = field(default_factory=StageOptions)

    def __post_init__(self) -> None:
        for section, kind in get_type_hints(type(self)).items():
            instance(f"options.{section}", getattr(self, section), kind, kind.__name__)
        if self.pretraining.distillation_weight not in (0, AUTO):
            raise UserError("pretraining.distillation_weight needs a teacher, which only finetuning has: set it to 0")
        if self.episode.surrogate and self.search.sensitivity is None:
            raise UserError("episode.surrogate needs a sensitivity: set search.sensitivity")
        if self.stages.shares and self.episode.macs_range is not None:
            raise UserError(
                "episode.macs_range and stages.shares exclude each other, for a stage has one budget: leave one out"
            )

    def playing(self, episode: EpisodeOptions | None) -> Options:
        """Return the options with others of the agent's episodes; None: the same.

        Raises:
            UserError: These do not fit the other sections.
        """
        return self if episode is None else replace(self, episode=episode)

    def measure(self) -> str | None:
        """Return the measure of the sensitivity that the agent reads; None: it reads none."""
        return self.search.sensitivity if self.episode.sensitivity else None

    def drop_probability(self) -> float | None:
        """Return the probability of dropping a candidate that is as good as the best one; None: no racing.

        Candidates of several budgets cannot be compared and do not race; nor do those from which a surrogate learns.
        """
        whole = self.episode.macs_range is not None or self.episode.imagines(self.measure())
        return self.scoring.drop_probability if self.scoring.racing and not whole else None

    def evaluation_examples(self, holdout: int, batch_size: int) -> int:
        """Return the forward passes of single examples in an evaluation: scoring, repair and fine-tuning.

        Args:
            holdout: Number of held-out examples.
            batch_size: Training examples in a step.
        """
        return self.scoring.count(holdout) + self.candidate.examples + PASSES * self.scoring.finetune_steps * batch_size

    def iterations(self, limits: BoundBudget, evaluation_examples: int, episodes: int) -> int:
        """Return the agent's iterations in the real environment, after sensitivity and starting candidates are paid.

        Args:
            limits: The budget, bound to the graph.
            evaluation_examples: Forward passes of single examples in an evaluation.
            episodes: Episodes of an iteration, one evaluation each.

        Raises:
            UserError: The evaluations do not suffice for one iteration.
        """
        passes, examples = self.candidate.passes, 0
        calibration, measure = self.candidate.calibration_count, self.measure()
        if measure is not None:
            row = SENSITIVITIES.find(measure)
            passes |= {*row.passes}
            examples = row.charged(limits.allowed, calibration)
        examples += len(passes) * calibration
        starting = starting_count(measure is not None, limits)
        reserved = self.episode.reserved(measure)
        spent = starting + math.ceil(examples / evaluation_examples) + reserved
        count = self.episode.iterations(self.search.evaluations - spent, episodes, measure)
        if count < 1:
            raise UserError(
                f"search.evaluations is {self.search.evaluations}: at least {spent + episodes} are needed, {spent} for "
                f"the {starting} starting candidates, calibration and sensitivity"
                + (f" and the {reserved} last ones" if reserved else "")
                + f", and one iteration of {episodes} episodes"
            )
        return count
