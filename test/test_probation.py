"""An unsafe candidate never keeps the robot, and never hands it to something worse."""

import pytest

from saferule_core.probation import Decision, Probation


@pytest.mark.parametrize(
    ("incumbent_cost", "completed", "mean_cost", "confirmed", "decision"),
    [
        (77.0, 2, 0.0, False, Decision.WATCH),
        (77.0, 5, 4.0, False, Decision.PASSED),
        (3.0, 2, 50.0, True, Decision.ROLL_BACK),
        (30.0, 2, 90.0, True, Decision.ROLL_BACK),
        (77.0, 2, 50.0, True, Decision.HOLD),
        (77.0, 9, 50.0, True, Decision.HOLD),
    ],
)
def test_decisions(incumbent_cost, completed, mean_cost, confirmed, decision):
    probation = Probation("candidate", "incumbent", incumbent_cost, cost_limit=10.0, episodes=5)
    assert probation.judge(completed, mean_cost, confirmed) is decision
