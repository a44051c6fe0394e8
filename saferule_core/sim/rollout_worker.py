"""A process with one simulated robot: reads a request from stdin, writes one line of JSON per episode to stdout.

    python -m saferule_core.sim.rollout_worker < request.json

Request: {"spec": YAML text, "source": where it came from, "log": bool, "nice": int, "jobs": [...]}. Job: {"index": i,
"seed": reset seed, "drive": {...}}, with `drive` one of {"bundle": directory}, {"factory": "module:function"}
(function(spec) returns a callable from observation to action), {"behaviour": name}; for a behaviour also
"style_seed": [seed, episode]. Answers: {"index": i, "result": {...}}, or {"error": words} and status 1.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import IO, Any

import msgspec
import numpy as np

from saferule_core.errors import SaferuleError, SimulationError
from saferule_core.signals import physical_of_raw
from saferule_core.sim import behaviours
from saferule_core.sim.robots import SimulatedRobot, make_robot
from saferule_core.spec import RobotSpec, parse_spec

Drive = Callable[[np.ndarray], np.ndarray]


def main() -> int:
    """Serve one request; return the exit status."""
    answers = _private_stdout()
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=dict[str, Any])
    try:
        os.nice(int(request.get("nice", 0)))
        _serve(request, answers)
    except SaferuleError as error:
        _send(answers, {"error": str(error)})
        return 1
    except BrokenPipeError:
        return 1  # nobody listens any more
    return 0


def _private_stdout() -> IO[bytes]:
    """Return a stream to where stdout led, and lead stdout itself to stderr: physics engines print."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def _send(answers: IO[bytes], answer: dict[str, Any]) -> None:
    answers.write(msgspec.json.encode(answer) + b"\n")
    answers.flush()


def _serve(request: dict[str, Any], answers: IO[bytes]) -> None:
    spec = parse_spec(request["spec"], request["source"])
    robot = make_robot(spec)
    known: dict[tuple[str, str], Callable[[dict[str, Any]], Drive]] = {}
    for job in request["jobs"]:
        (drive,) = job["drive"].items()
        if drive not in known:
            known[drive] = _driving(job["drive"], spec, robot)
        run = _log_episode if request.get("log") else _run_episode
        _send(answers, {"index": job["index"], "result": run(spec, robot, known[drive](job), job)})
    robot.close()


def _driving(drive: dict[str, str], spec: RobotSpec, robot: SimulatedRobot) -> Callable[[dict[str, Any]], Drive]:
    """Return a function that gives the driver of a job."""
    if "behaviour" in drive:

        def behaviour(job: dict[str, Any]) -> Drive:
            driver = behaviours.make(drive["behaviour"], spec, np.random.default_rng(job["style_seed"]))
            job["style"] = driver.style
            return lambda _: driver(physical_of_raw(spec, robot.sense()))

        return behaviour
    if "factory" in drive:
        module, _, name = drive["factory"].partition(":")
        try:
            policy = getattr(importlib.import_module(module), name)(spec)
        except (ImportError, AttributeError, ValueError) as error:
            raise SimulationError(f"policy: expected module:function, found {drive['factory']!r} ({error})") from error
        return lambda _: policy
    import torch

    from saferule_core.store import bundle

    torch.set_num_threads(1)
    driver = bundle.load_policy(drive["bundle"], spec).agent.driver()

    def policy(_: dict[str, Any]) -> Drive:
        driver.reset()
        return lambda observation: driver.act(observation[None])[0]

    return policy


def _run_episode(spec: RobotSpec, robot: SimulatedRobot, drive: Drive, job: dict[str, Any]) -> dict[str, Any]:
    """Return reward, cost, number of steps and path of an episode."""
    observation, reward, cost, path = robot.reset(job["seed"]), 0.0, 0.0, []
    for _ in range(spec.episode.max_steps):
        step = robot.step(drive(observation))
        observation, reward, cost = step.observation, reward + step.reward, cost + step.cost
        path.append(robot.position())
        if step.terminated or step.truncated:
            break
    return {"reward": reward, "cost": cost, "steps": len(path), "path": path}


def _log_episode(spec: RobotSpec, robot: SimulatedRobot, drive: Drive, job: dict[str, Any]) -> dict[str, Any]:
    """Return everything that was sensed, commanded and judged in an episode, as columns."""
    observation, terminated = robot.reset(job["seed"]), False
    states, actions, rewards, costs = [robot.sense()], [], [], []
    for _ in range(spec.episode.max_steps):
        action = np.asarray(drive(observation), dtype=np.float64)
        step = robot.step(action)
        observation, terminated = step.observation, step.terminated
        states.append(robot.sense())
        actions.append(action)
        rewards.append(step.reward)
        costs.append(step.cost)
        if step.terminated or step.truncated:
            break
    commands = {name: values.tolist() for name, values in spec.command(np.array(actions)).items()}
    sensors = {
        kind: {path: [state[kind][path] for state in states] for path in fields} for kind, fields in states[0].items()
    }
    return {
        "sensors": sensors,
        "commands": commands,
        "rewards": rewards,
        "costs": costs,
        "terminated": bool(terminated),
        "style": job.get("style", {}),
    }


if __name__ == "__main__":
    sys.exit(main())
