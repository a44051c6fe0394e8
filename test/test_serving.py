"""What the unlearning server tells the executor of a policy that it hands over."""

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")

from saferule.msg import UnlearnRequest
from saferule_ros import requests
from saferule_ros.serving import ProbationRules, Serving


class Handover:
    """Notes how it is asked."""

    def swap(self, policy_id, reason, **terms):
        self.asked = policy_id, terms
        return 7


@pytest.mark.parametrize(("incumbent_cost", "holds"), [(3.0, False), (10.0, False), (64.8, True)])
def test_a_robot_is_held_rather_than_given_back_to_a_policy_over_its_limit(incumbent_cost, holds):
    handover, store = Handover(), SimpleNamespace(activate=lambda policy_id, reason: None)
    serving = Serving(None, store, handover, None, None, ProbationRules(0, 60.0), None)
    result = requests.empty_result()
    result.candidate_id, result.incumbent_cost, result.cost_limit = "c" * 64, incumbent_cost, 10.0
    serving._hand_over(requests.Job(UnlearnRequest(), "1", print), result)
    assert handover.asked == ("c" * 64, {"probation_s": 60.0, "hold_on_failure": holds})
    assert "drives from tick 7" in result.message
