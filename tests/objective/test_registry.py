import sys
from types import ModuleType

import pytest

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.objective import Classification, Regression, Segmentation, find_objective


class Mine(Regression):
    pass


def test_by_name_path_class_and_object(monkeypatch):
    module = ModuleType("own_objectives")
    module.Mine, module.number = Mine, 3
    monkeypatch.setitem(sys.modules, "own_objectives", module)
    assert [type(find_objective(name)) for name in ("classification", "segmentation", "regression")] == [
        Classification,
        Segmentation,
        Regression,
    ]
    assert type(find_objective("own_objectives.Mine")) is Mine and type(find_objective(Mine)) is Mine
    given = Segmentation(ignore_index=7)
    assert find_objective(given) is given
    assert find_objective({"class_path": "segmentation", "init_args": {"ignore_index": 7}}) == given
    assert find_objective({"class_path": "own_objectives.Mine"}) == Mine()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("regresion", r"objective is 'regresion' \(did you mean regression\?\): expected one of classification, seg"),
        ("math.pi", "objective 'math.pi': expected a class of gnnrl_lightning.objective.Objective, not a float"),
        ({"class_path": "regression", "init_args": {"a": 1}}, "objective 'regression' refuses its init_args"),
        ({"init_args": {}}, "expected class_path and init_args"),
    ],
)
def test_what_is_no_objective_is_refused(given, message):
    with pytest.raises(UserError, match=message):
        find_objective(given)
