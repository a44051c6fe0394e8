"""Fixtures that several test modules share."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts: more threads only get into each other's way

from saferule_core.spec import parse_spec

LONG = ("test_unlearning_server", "test_worker", "test_unlearning", "test_cli", "test_benchmark", "test_up")
"""Files that take long, the longest first: begun late, one of them would run alone at the end."""

POINT_SPEC = """
name: point
rate_hz: 10.0
episode:
  max_steps: 20
  marker: {topic: episode, type: std_msgs/msg/Header, field: frame_id}
observation:
  - {name: x, topic: odom, type: nav_msgs/msg/Odometry, field: pose.pose.position.x, scale: 0.1, max_age: 0.35}
  - {name: y, topic: odom, type: nav_msgs/msg/Odometry, field: pose.pose.position.y, scale: 0.1, max_age: 0.35}
  - {name: heading, topic: odom, type: nav_msgs/msg/Odometry, field: pose.pose.orientation,
     transform: yaw_sin_cos, max_age: 0.35}
  - {name: radial_error, expression: "hypot(x, y) - 7.0", scale: 0.1}
action:
  - {name: force_x, topic: cmd_force, type: geometry_msgs/msg/WrenchStamped, field: wrench.force.x,
     low: -3.5, high: 3.5, unit: N}
  - {name: force_y, topic: cmd_force, type: geometry_msgs/msg/WrenchStamped, field: wrench.force.y,
     low: -3.5, high: 3.5, unit: N, max_rate: 10.0}
cost:
  limit: 3.0
  constraints:
    - {name: outside_bounds, expression: "abs(x) > 6.0"}
  logged: {topic: cost, type: std_msgs/msg/Float64, field: data}
reward:
  expression: "x - previous.x - 0.001 * abs(action.force_x)"
  topic: {topic: reward, type: std_msgs/msg/Float64, field: data}
"""


@pytest.fixture
def point_yaml() -> str:
    """A small robot description: a point in the plane that must stay within |x| <= 6 m."""
    return POINT_SPEC


@pytest.fixture
def point_spec():
    """The same, parsed."""
    return parse_spec(POINT_SPEC, "point.yaml")


@pytest.fixture
def ros_graph(tmp_path):
    """Node processes in a ROS domain of their own; see ros_testing.py."""
    pytest.importorskip("rclpy")
    from ros_testing import RosGraph

    with RosGraph(tmp_path) as graph:
        yield graph


def pytest_collection_modifyitems(items):
    order = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))
