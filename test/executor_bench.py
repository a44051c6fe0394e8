"""A test bench for policy_executor: the test is its robot, its clock and its cost monitor, one period after the other.

    bench.begin(); status = bench.step(); bench.steps(5, x=7.0)
"""

from __future__ import annotations

import time

import torch
from geometry_msgs.msg import WrenchStamped
from nav_msgs.msg import Odometry
from rclpy.time import Time
from ros_testing import nanoseconds
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from saferule.msg import CostStatus, PolicyStatus
from saferule.srv import SwapPolicy
from saferule_core import agents
from saferule_ros.messages import COMMAND, LATCHED, STATUS

EXECUTOR = "policy_executor"
PERIOD_NS = 100_000_000


def constant_agent(spec, value):
    """Return an agent that always acts the same, `value` in (-1, 1) in every channel."""
    torch.manual_seed(0)
    agent = agents.build("filtered_cloning", spec.obs_dim, spec.action_dim, {"hidden": (4,)})
    last = agent.actor.body[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(torch.atanh(torch.tensor(value)))
    return agent


class Bench:
    """Time passes only in `step`; an executor with use_sim_time is expected in the graph."""

    def __init__(self, graph):
        self.graph, self.now_ns = graph, 10_000_000_000
        self._clock = graph.node.create_publisher(Clock, "/clock", COMMAND)
        self._odometry = graph.node.create_publisher(Odometry, "odom", STATUS)
        self._cost = graph.node.create_publisher(CostStatus, "cost_status", STATUS)
        self._stop = graph.node.create_publisher(Bool, "safety_stop", LATCHED)
        self._swap = graph.node.create_client(SwapPolicy, f"{EXECUTOR}/swap_policy")
        self.statuses = graph.collect("policy_status", PolicyStatus)
        self.commands = graph.collect("cmd_force", WrenchStamped)

    def begin(self):
        """Activate the executor and let it find its first input."""
        self.publish_clock()
        self.graph.configure(EXECUTOR)
        self.graph.wait_for_readers("odom", 1)
        self.graph.wait_for_readers("cost_status", 1)
        self.graph.wait_for_readers("safety_stop", 1)
        self.graph.activate(EXECUTOR)
        self.graph.wait_until(lambda: self.step().state == PolicyStatus.STATE_RUNNING, "the policy to drive")

    def end(self):
        """Take the executor back to where it was."""
        self.stop(False)
        self.graph.deactivate(EXECUTOR)
        assert self.graph.change_state(EXECUTOR, 2), "cleanup"

    def publish_clock(self):
        self._clock.publish(Clock(clock=Time(nanoseconds=self.now_ns).to_msg()))

    def publish_odometry(self, x=0.0):
        message = Odometry()
        message.header.stamp = Time(nanoseconds=self.now_ns).to_msg()
        message.pose.pose.position.x, message.pose.pose.orientation.w = x, 1.0
        self._odometry.publish(message)

    def step(self, x=0.0, sensors=True):
        """Let a period pass, and return the status of its tick."""
        self.now_ns += PERIOD_NS
        if sensors:
            self.publish_odometry(x)
            time.sleep(0.005)  # so that it is there before the tick, as it would be on a robot
        self.publish_clock()
        self.graph.wait_until(lambda: self._told() is not None, f"the tick at {self.now_ns / 1e9:g} s")
        return self._told()

    def steps(self, count, **changes):
        """Let some periods pass; return the status of each."""
        return [self.step(**changes) for _ in range(count)]

    def force(self):
        """Return the newest command's force along x [N]."""
        return self.commands[-1].wrench.force.x

    def states(self):
        """Return the state at every tick so far."""
        return [status.state for status in self.statuses]

    def _told(self):
        """Return the status of this period's tick, once it and the command are here."""
        newest = [messages[-1] for messages in (self.commands, self.statuses) if messages]
        arrived = len(newest) == 2 and all(nanoseconds(message.header.stamp) == self.now_ns for message in newest)
        return newest[1] if arrived else None

    def monitor(self, policy_id="", **fields):
        """Speak as the cost monitor."""
        self._cost.publish(CostStatus(policy_id=policy_id, **fields))

    def stop(self, stops):
        """Ask for a safety stop, or release it."""
        self._stop.publish(Bool(data=stops))

    def until(self, state, what):
        """Let periods pass until the executor is in a state; return its status."""
        found = []
        self.graph.wait_until(lambda: found.append(self.step()) or found[-1].state == state, what)
        return found[-1]

    def resume(self):
        return self.graph.call(Trigger, f"{EXECUTOR}/resume")

    def swap(self, policy_id, **options):
        """Ask for a swap while time goes on; return the answer."""
        call = self.ask_for_swap(policy_id, **options)
        self.graph.wait_until(lambda: self.step() and call.done(), "the answer to a swap")
        return call.result()

    def ask_for_swap(self, policy_id, **options):
        """Ask for a swap; return the call, which is done when it is answered."""
        assert self._swap.wait_for_service(timeout_sec=60.0)
        return self._swap.call_async(SwapPolicy.Request(policy_id=policy_id, reason="test", **options))
