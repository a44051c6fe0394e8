"""The same as saferule.launch.py with a simulated robot and simulated time.

ros2 launch saferule demo.launch.py spec:=ball_circle store:=runs/ball_0/store
"""

from saferule_ros.launching import describe


def generate_launch_description():
    """Return the nodes of a simulated robot."""
    return describe(simulation=True)
