"""Objectives: loss, figures and comparison of candidates for each kind of task."""

from gnnrl_lightning.objective.classification import Classification
from gnnrl_lightning.objective.protocol import Figure, Measured, Objective, relative_distance
from gnnrl_lightning.objective.registry import OBJECTIVES, find_objective
from gnnrl_lightning.objective.regression import Regression
from gnnrl_lightning.objective.segmentation import Segmentation

__all__ = [
    "OBJECTIVES",
    "Classification",
    "Figure",
    "Measured",
    "Objective",
    "Regression",
    "Segmentation",
    "find_objective",
    "relative_distance",
]
