"""The bring-up table as launch_ros actions; the launch files are two calls of this.

    def generate_launch_description():
        return describe(simulation=False)

Needs launch and launch_ros. Where they are not installed, `saferule up` starts the same table. What cannot go on is
raised: launch then says why, ends the other nodes and exits with 1.
"""

from __future__ import annotations

import contextlib

from launch import Event, EventHandler, LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, RegisterEventHandler
from launch.events.process import ProcessExited
from launch.logging import get_logger
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.ros_adapters import get_ros_node

from saferule_ros import bringup
from saferule_ros.bringup import BringUpError, NodeEntry
from saferule_ros.lifecycle import LifecycleManager


def describe(simulation: bool) -> LaunchDescription:
    """Return the launch description of a robot, or of a simulated one."""
    declared = [
        DeclareLaunchArgument(
            argument.name, default_value=argument.default_for(simulation), description=argument.description
        )
        for argument in bringup.ARGUMENTS
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_start, args=[simulation])])


def _start(context: LaunchContext, simulation: bool) -> list[Action]:
    """Turn the table into actions, now that the arguments have their values; raises BringUpError."""
    arguments = {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in bringup.ARGUMENTS}
    entries = bringup.nodes(simulation, arguments)
    failed = EventHandler(
        matcher=lambda event: isinstance(event, _Failed), entities=[OpaqueFunction(function=_raise_failure)]
    )
    actions: list[Action] = [RegisterEventHandler(failed), *(_node(entry, arguments) for entry in entries)]
    if bringup.is_true(arguments, "autostart"):
        actions.append(OpaqueFunction(function=_begin_transitions, args=[entries, arguments]))
    return actions


def _node(entry: NodeEntry, arguments: dict[str, str]) -> LifecycleNode:
    def on_exit(event: ProcessExited, context: LaunchContext) -> Action | None:
        if context.is_shutdown:
            return None
        words = f"{entry.name} ended with exit code {event.returncode}"
        if entry.vital:
            raise BringUpError(words)
        return LogInfo(msg=f"{words}; the others go on")

    return LifecycleNode(
        package=bringup.PACKAGE,
        executable=entry.name,
        name=entry.name,
        namespace=arguments["namespace"],
        parameters=[str(bringup.params_path(arguments)), bringup.parameters(entry, arguments)],
        remappings=list(bringup.remappings(entry, arguments).items()),
        arguments=["--ros-args", "--log-level", arguments["log_level"]],
        additional_env=bringup.node_environment(),
        output="both",
        on_exit=on_exit,
    )


def _begin_transitions(context: LaunchContext, entries: tuple[NodeEntry, ...], arguments: dict[str, str]) -> None:
    """Take the nodes through their transitions in a thread, as launch_ros does with its own; it spins the node."""
    manager = LifecycleManager(get_ros_node(context), lambda: _check_running(context))
    work = context.asyncio_loop.run_in_executor(None, _change_all, context, manager, entries, arguments)
    context.add_completion_future(work)


def _change_all(
    context: LaunchContext, manager: LifecycleManager, entries: tuple[NodeEntry, ...], arguments: dict[str, str]
) -> None:
    try:
        for transition, entry in bringup.transitions(entries):
            manager.change(bringup.full_name(entry, arguments), transition)
    except _LaunchEnded:
        return
    except BringUpError as error:
        with contextlib.suppress(RuntimeError):  # the loop may be gone meanwhile
            context.asyncio_loop.call_soon_threadsafe(context.emit_event_sync, _Failed(error))
    else:
        get_logger(bringup.PACKAGE).info("all nodes are up")


class _Failed(Event):
    """Carries an error from the thread to the launch."""

    name = "saferule.bring_up_failed"

    def __init__(self, error: BringUpError) -> None:
        super().__init__()
        self.error = error


def _raise_failure(context: LaunchContext) -> None:
    raise context.locals.event.error


class _LaunchEnded(BringUpError):
    """The launch is shutting down, so nothing more is to be brought up."""


def _check_running(context: LaunchContext) -> None:
    if context.is_shutdown:
        raise _LaunchEnded("the launch is shutting down")
