"""The control loop without ROS: newest sensors in, one safe command per tick out, policies exchanged between two ticks.

    controller = Controller(spec, policy, policy_id)
    controller.update("odom", message, received_ns)
    tick = controller.tick(now_ns)            # tick.command goes to the robot, whatever happened
    controller.settle()                       # what need not delay the command: shadow, memory
    controller.swap(candidate, candidate_id)  # between two ticks: one reference assignment

    controller    the tick itself                          schedule     when ticks are due; pauses and jumps of a clock
    action_guard  shape, finiteness, bounds, rates         statistics   what the loop measures of itself
    inputs        unusable inputs, and when they latch     stops        stop and hold, latched until an explicit resume
    ranges        observations unlike the training data    heartbeat    silence of the cost monitor
    succession    which policy is in the loop, and back    slot         the policy in the loop, blending
    shadow        a candidate beside the incumbent         probation    a new policy under a tighter budget
    tick          what a tick gives                        settings     what an operator may set
"""

from saferule_core.control.controller import Controller
from saferule_core.control.probation import ProbationTerms
from saferule_core.control.schedule import TickSchedule
from saferule_core.control.settings import ControlSettings
from saferule_core.control.shadow import Shadow
from saferule_core.control.slot import Policy
from saferule_core.control.statistics import LoopStatistics
from saferule_core.control.stops import ResumeRefused
from saferule_core.control.succession import Reverted
from saferule_core.control.tick import ControlState, Tick

__all__ = [
    "ControlSettings",
    "ControlState",
    "Controller",
    "LoopStatistics",
    "Policy",
    "ProbationTerms",
    "ResumeRefused",
    "Reverted",
    "Shadow",
    "Tick",
    "TickSchedule",
]
