"""Simulated robots that stand for the real one: to validate policies, to log data, to run behind ROS topics.

    robot = robots.make_robot(spec)                              # one per process
    records = rollout.run_episodes(spec, "bundles/first", seeds=range(20), workers=2)
    logs = collect.collect_episodes(spec, episodes=500, seed=0, workers=2)
"""
