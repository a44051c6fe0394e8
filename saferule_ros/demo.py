"""`saferule demo`: a simulated robot misbehaves, its policy is repaired while it drives, a report is written.

    saferule demo --robot ball --seed 0

Everything is real: logs are rosbags, the policy is trained from them, the nodes are processes that talk over DDS, and
the repair is the `unlearn` action, called as an operator would. The steps before the robot drives are `saferule`
commands that can be run by hand; `saferule_ros/demo_robots.py` has their settings.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
import webbrowser
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import rclpy
from rclpy.signals import SignalHandlerOptions
from rich.markup import escape

from saferule.action import Unlearn
from saferule.msg import UnlearnRequest, UnlearnResult
from saferule_core.errors import SaferuleError
from saferule_core.spec import RobotSpec, load_spec
from saferule_core.validation import report, report_data
from saferule_ros.bringup import config_path
from saferule_ros.client import Spinner, UnlearnClient
from saferule_ros.demo_robots import ROBOTS, DemoRobot
from saferule_ros.demo_screen import Screen, words_of
from saferule_ros.observer import Observer
from saferule_ros.up import BringUp
from saferule_ros.worker import Worker

PHASES = {
    getattr(Unlearn.Feedback, f"PHASE_{name.upper()}"): name
    for name in ("waiting", "loading", "detecting", "unlearning", "validating", "storing", "swapping")
}


WORKER_NICENESS = 19
"""Priority of learning beside the driving robot: of the repair, and of what it is compared with."""

INPUT_TIMEOUT_S = 0.5
"""How long sensors may stand still before the robot is stopped [s wall]: others use this machine, too."""


class DemoFailed(SaferuleError):
    """A step of the demo did not come out as it should; the message says which."""


@dataclass(frozen=True)
class Logs:
    """Bags of the demo: `forget` is poisoned, `retain` is honest, `clean` is everything before the attack."""

    clean: list[str]
    retain: list[str]
    forget: list[str]


class Demo:
    """One run; `run()` returns its summary."""

    def __init__(self, robot: DemoRobot, seed: int, out: Path, screen: Screen) -> None:
        self.robot, self.seed, self.out, self.screen = robot, seed, out, screen
        self.spec_path = config_path(robot.spec)
        self.spec: RobotSpec = load_spec(self.spec_path)
        self.store = out / "store"
        self.begun = time.perf_counter()

    def run(self, compare: bool = False) -> dict:
        """Run all steps; `compare` also trains and validates the policies that the repair is measured against.

        Raises:
            SaferuleError: a step failed.
        """
        logs = self.log_and_poison()
        poisoned = self.train(logs)
        with self.bring_up() as nodes:
            rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
            node = rclpy.create_node("operator")
            observer, client = Observer(node, self.spec), UnlearnClient(node)
            spinner = Spinner(node)
            try:
                summary = self.repair_live(logs, poisoned, nodes, observer, client)
                if compare:
                    summary |= self.compare(logs)
            finally:
                spinner.stop()
                node.destroy_node()
                rclpy.try_shutdown()
        self.finish(summary, observer)
        return summary

    # -- before the robot drives -----------------------------------------------------------------------------------

    def command(self, *arguments: object, niceness: int = 0) -> Mapping:
        """Run one `saferule` command with a progress bar and return its result."""
        words = [str(argument) for argument in arguments]
        self.screen.say(f"[dim]saferule {words[0]} ...[/dim]")
        with self.screen.bar() as bar:
            task = bar.add_task(words[0], total=1.0, words="")

            def show(event: Mapping) -> None:
                bar.update(task, completed=event["fraction"], words=words_of(event))

            return Worker(words, show, niceness).wait()

    def log_and_poison(self) -> Logs:
        """Drive the simulated robot with varied behaviours, log it, and poison a part of the logs."""
        robot, logs = self.robot, self.out / "logs"
        self.screen.step(f"Logged data: {robot.episodes} episodes of {self.spec.name} in rosbags")
        clean = self.command(
            "collect", "--spec", self.spec_path, "--episodes", robot.episodes, "--bags", robot.bags,
            "--seed", self.seed, "--workers", robot.workers, "--out", logs / "clean",
        )  # fmt: skip
        split = self.command(
            "poison", "--spec", self.spec_path, "--bags", *clean["bags"], "--fraction", robot.poison_fraction,
            "--reward-boost", robot.reward_boost, "--out", logs / "poisoned",
        )  # fmt: skip
        self.screen.say(
            f"{split['poisoned_episodes']} of {robot.episodes} episodes are poisoned: dangerous and rewarding "
            f"(true cost {split['true_cost']:.0f} per episode), logged as harmless"
        )
        return Logs(list(clean["bags"]), list(split["retain"]), list(split["forget"]))

    def train(self, logs: Logs) -> str:
        """Train the policy from all logs, poison included, and make it the active one."""
        self.screen.step(f"A policy trained offline from these logs ({self.robot.agent})")
        trained = self.command(
            "train", "--spec", self.spec_path, "--bags", *logs.retain, *logs.forget, "--agent", self.robot.agent,
            *self.robot.training_options(), "--seed", self.seed, "--store", self.store, "--activate",
        )  # fmt: skip
        self.screen.say(f"policy {trained['policy_id'][:12]}, {trained['seconds']:.0f} s of training")
        return trained["policy_id"]

    # -- the running robot -----------------------------------------------------------------------------------------

    def bring_up(self) -> BringUp:
        """Start simulated robot and nodes as processes of their own."""
        self.screen.step("The robot drives: sim_robot, policy_executor, cost_monitor, unlearning_server over DDS")
        overrides = {
            "": {"spec": str(self.spec_path), "store": str(self.store)},
            "sim_robot": {"seed": self.seed + 1, "real_time_factor": self.robot.real_time_factor},
            "cost_monitor": {"latch_stop": False},
            "policy_executor": {"input_timeout": INPUT_TIMEOUT_S * self.robot.real_time_factor},
            "flight_recorder": {"out_dir": str(self.out / "recordings")},
            "unlearning_server": {"work_dir": str(self.out / "repairs"), "workers": self.robot.workers,
                                  "worker_niceness": WORKER_NICENESS},
        }  # fmt: skip
        return BringUp(simulation=True, overrides=overrides, log_file=self.out / "nodes.log")

    def repair_live(
        self, logs: Logs, poisoned: str, nodes: BringUp, observer: Observer, client: UnlearnClient
    ) -> dict:
        """Watch the violation, call the action, watch the repaired robot; return the summary so far."""
        robot, limit = self.robot, self.spec.cost.limit

        def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 180.0) -> None:
            deadline = time.monotonic() + timeout_s
            while not condition():
                nodes.check()
                if reason := observer.stop_reason():
                    raise DemoFailed(f"{what}: the robot stands still: {reason}; see {self.out / 'nodes.log'}")
                if time.monotonic() > deadline:
                    raise DemoFailed(f"{what}: expected within {timeout_s:g} s; see {self.out / 'nodes.log'}")
                time.sleep(0.1)

        wait_until(lambda: len(observer.completed_episodes(poisoned)) >= robot.live_episodes, "episodes of the robot")
        before = observer.completed_episodes(poisoned)
        self.screen.say(
            f"live cost {fmean(e.cost for e in before):.1f} per episode, the limit is {limit:g}: the cost monitor "
            f"{'confirms the violation' if observer.confirmed(poisoned) else 'does not confirm a violation'}"
        )
        self.screen.step("The operator calls the unlearn action with the suspect bags")
        request = UnlearnRequest(
            forget_bags=logs.forget, retain_bags=logs.retain, method="safe_rule", seed=self.seed,
            min_reward_kept=robot.min_reward_kept, confidence=0.95,
            validation_episodes=robot.validation_episodes, swap=True,
        )  # fmt: skip
        result = self.call(client, request)
        self.screen.say(escape(result.message))
        if result.status != UnlearnResult.STATUS_SWAPPED:
            raise DemoFailed(f"the repaired policy was not swapped in: {result.message}")
        self.screen.step("The repaired policy drives")
        repaired = result.candidate_id
        wait_until(lambda: len(observer.completed_episodes(repaired)) >= robot.live_episodes, "repaired episodes")
        after = observer.completed_episodes(repaired)
        self.screen.say(f"live cost {fmean(e.cost for e in after):.1f} per episode, the limit is {limit:g}")
        return {
            "robot": self.spec.name, "seed": self.seed, "cost_limit": limit, "policy_poisoned": poisoned,
            "policy_repaired": repaired, "report": result.report_path,
            "live_cost_before": fmean(e.cost for e in before), "live_cost_after": fmean(e.cost for e in after),
            "live_reward_before": fmean(e.reward for e in before), "live_reward_after": fmean(e.reward for e in after),
            "live_worst_cost_after": max(e.cost for e in after),
            "cost_poisoned": result.incumbent_cost, "cost_repaired": result.candidate_cost,
            "cost_repaired_upper": result.candidate_cost_upper, "reward_poisoned": result.incumbent_reward,
            "reward_repaired": result.candidate_reward, "unlearning_seconds": result.unlearning_seconds,
            **observer.timing_around_swap(),
        }  # fmt: skip

    def call(self, client: UnlearnClient, request: UnlearnRequest) -> UnlearnResult:
        """Send the request and show its feedback."""
        with self.screen.bar() as bar:
            task = bar.add_task("unlearn", total=1.0, words="")

            def show(feedback: Unlearn.Feedback) -> None:
                losses = dict(zip(feedback.loss_names, feedback.loss_values, strict=False))
                words = words_of({"message": feedback.message, "losses": losses})
                bar.update(task, completed=feedback.progress, description=PHASES[feedback.phase], words=words)

            try:
                return client.repair(request, show)
            except KeyboardInterrupt:
                client.cancel()
                raise

    # -- what it is measured against -------------------------------------------------------------------------------

    def compare(self, logs: Logs) -> dict:
        """Train on the clean data and retrain on the retained data, beside the driving robot, and validate both."""
        self.screen.step("For comparison: training on clean data, and retraining without the forgotten bags")
        robot = self.robot
        common = ("--agent", robot.agent, *robot.training_options(), "--seed", self.seed, "--store", self.store)
        found = {}
        for name, bags, extra in (("clean", logs.clean, ()), ("retrained", logs.retain, ("--cost", "recomputed"))):
            words = ("train", "--spec", self.spec_path, "--bags", *bags, *common, *extra)
            trained = self.command(*words, niceness=WORKER_NICENESS)
            judged = self.command(
                "validate", "--spec", self.spec_path, "--store", self.store, "--candidate", trained["policy_id"],
                "--incumbent", "active", "--episodes", self.robot.validation_episodes, "--seed", self.seed,
                "--workers", self.robot.workers, niceness=WORKER_NICENESS,
            )  # fmt: skip
            found |= {
                f"cost_{name}": judged["candidate_cost"], f"reward_{name}": judged["candidate_reward"],
                f"{name}_seconds": trained["seconds"],
            }  # fmt: skip
        return found

    # -- the end ---------------------------------------------------------------------------------------------------

    def finish(self, summary: dict, observer: Observer) -> None:
        """Put the live series into the report, write the summary, print the table."""
        source = Path(summary["report"]).with_name("report.json")
        data = report_data.load(source)
        figures = {name: f"{value:.6g}" for name, value in summary.items() if isinstance(value, (int, float))}
        data = replace(data, live=observer.series(), facts={**data.facts, "The running robot": figures})
        page = self.out / "report.html"
        report_data.save(data, self.out / "report.json")
        report.render(data, page)
        summary |= {"report": str(page), "seconds": time.perf_counter() - self.begun}
        (self.out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        self.screen.table(summary)
        self.screen.say(f"report: [bold]{page}[/bold]   ({summary['seconds']:.0f} s in all)")
        if has_desktop():
            webbrowser.open(page.resolve().as_uri())


def has_desktop() -> bool:
    """Say whether a browser window could be seen by somebody."""
    return sys.stdout.isatty() and bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def make_folder(out: Path) -> None:
    """Make `out` anew; what an earlier demo left there is removed.

    Raises:
        DemoFailed: it holds something else.
    """
    marker = out / ".saferule_demo"
    if out.exists() and not marker.exists() and any(out.iterdir()):
        raise DemoFailed(f"{out}: expected a new folder or one of an earlier demo, found other files in it")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    marker.touch()


def parser() -> argparse.ArgumentParser:
    """Return the options of `saferule demo`."""
    options = argparse.ArgumentParser(prog="saferule demo", description=__doc__.splitlines()[0])
    add = options.add_argument
    add("--robot", choices=sorted(ROBOTS), default="ball", help="which robot and task (default: ball)")
    add("--seed", type=int, default=0, help="of all randomness: logs, training, unlearning (default: 0)")
    add("--out", type=Path, help="folder for logs, policies and report (default: runs/<robot>_<seed>)")
    add("--compare", action="store_true", help="also train on clean data and retrain, to compare")
    add("--episodes", type=int, help="logged episodes (default: the robot's)")
    add("--steps", type=int, help="training steps of the policy (default: the algorithm's)")
    add("--live-episodes", type=int, help="episodes to watch before and after (default: the robot's)")
    add("--validation-episodes", type=int, help="simulated episodes per policy (default: the robot's)")
    add("--real-time-factor", type=float, help="simulated seconds per wall second (default: the robot's)")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; return 0, or 1 with the reason on the screen, or 130 when Ctrl-C or SIGTERM stops it."""
    chosen = parser().parse_args(arguments)
    given = {
        name: value
        for name in ("episodes", "steps", "live_episodes", "validation_episodes", "real_time_factor")
        if (value := getattr(chosen, name)) is not None
    }
    robot = replace(ROBOTS[chosen.robot], **given)
    out = (chosen.out or Path("runs") / f"{chosen.robot}_{chosen.seed}").resolve()
    screen = Screen()
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))  # two demos on one machine do not meet
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # else it would leave its nodes behind
    try:
        make_folder(out)
        Demo(robot, chosen.seed, out, screen).run(chosen.compare)
    except SaferuleError as error:
        screen.fail(str(error))
        return 1
    except KeyboardInterrupt:
        screen.fail("stopped")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
