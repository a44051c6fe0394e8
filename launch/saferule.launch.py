"""Runs a policy on a robot, watches its cost and repairs it on request.

ros2 launch saferule saferule.launch.py spec:=my_robot.yaml store:=/var/lib/my_robot/policies
"""

from saferule_ros.launching import describe


def generate_launch_description():
    """Return the nodes of a robot."""
    return describe(simulation=False)
