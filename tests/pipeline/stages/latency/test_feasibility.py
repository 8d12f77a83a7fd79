from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import BudgetError
from tests.pipeline.run.made_up_run import (
    MEMBERS,
    TARGET,
    made_up_context,
    network_ns,
    predictors,
    recipe_of,
    share_ns,
)


def test_limits_below_the_fastest_network_are_refused_with_the_nearest_budget(tmp_path: Path) -> None:
    with made_up_context(tmp_path, recipe_of("0.001ms")) as context, pytest.raises(BudgetError) as caught:
        predictors(context)
    assert f"on {TARGET}" in caught.value.fix
    assert "budget_ms = 0.0" in caught.value.fix


def test_a_soft_budget_below_the_fastest_network_is_no_reason_to_refuse(tmp_path: Path) -> None:
    with made_up_context(tmp_path, recipe_of("0.001ms soft")) as context:
        found = predictors(context)
        assert found.limits_ns == {str(TARGET): 1000.0}
        assert all(found.constraints.feasible(each) for each in MEMBERS)
        assert found.kept_by([])


def test_predictors_know_networks_that_follow_from_their_blocks(tmp_path: Path) -> None:
    with made_up_context(tmp_path, recipe_of(f"{share_ns(0.5) / 1e6}ms")) as context:
        found = predictors(context)
        for each in MEMBERS:
            estimate = found.estimates(each)[str(TARGET)]
            assert estimate.value_ns == pytest.approx(network_ns(each), rel=1e-3)
