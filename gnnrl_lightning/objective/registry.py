"""The objectives by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gnnrl_lightning.errors import UserError, one_line
from gnnrl_lightning.objective.classification import Classification
from gnnrl_lightning.objective.protocol import Objective
from gnnrl_lightning.objective.regression import Regression
from gnnrl_lightning.objective.segmentation import Segmentation
from gnnrl_lightning.objective.trial import check_declared
from gnnrl_lightning.registry import Registry, name_and_arguments


def _class(given: Any) -> type[Objective]:
    if not (isinstance(given, type) and issubclass(given, Objective)):
        name = given.__name__ if isinstance(given, type) else f"a {type(given).__name__}"
        raise TypeError(f"expected a class of gnnrl_lightning.objective.Objective, not {name}")
    return given


OBJECTIVES: Registry[type[Objective]] = Registry("objective", _class)
"""Name -> class of an objective."""

OBJECTIVES.register("classification", Classification)
OBJECTIVES.register("segmentation", Segmentation)
OBJECTIVES.register("regression", Regression)


def find_objective(given: str | Mapping[str, Any] | type[Objective] | Objective) -> Objective:
    """Return an objective by name, import path or class.

    Args:
        given: A name in `OBJECTIVES` or an import path; a mapping with `class_path` and `init_args` (arguments by
            name); a class; or an objective, which is returned unchanged.

    Raises:
        UserError: The objective is unknown, does not accept its arguments, or declares no figures or ranking.
    """
    if isinstance(given, Objective):
        check_declared(given)
        return given
    path, arguments = name_and_arguments(given, "objective")
    found = OBJECTIVES.find(path)
    try:
        made = found(**arguments)
    except TypeError as error:
        raise UserError(
            f"objective {path!r} refuses its init_args {arguments}: {one_line(error)}; change them"
        ) from error
    check_declared(made)
    return made
