"""Safe reinforcement unlearning without ROS: data, simulation, agents, unlearning, validation, policy store.

    spec = saferule_core.spec.load_spec("config/ball_circle.yaml")
    data = saferule_core.data.bags.read_bags(["logs/day_1"], spec).transitions
    agent = saferule_core.agents.train("advantage_weighted", data, cost_limit=spec.cost.limit, seed=0)

Nothing in this package imports ROS; `saferule_ros` puts it behind nodes.
"""

__version__ = "0.1.0"
