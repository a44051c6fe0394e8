"""`saferule up`: the bring-up table as plain processes, where launch_ros is not installed.

    saferule up --simulation --spec ball_circle --store runs/ball_0/store

    with BringUp(simulation=True, overrides={"": {"spec": "ball_circle", "store": "policies"}}) as robot:
        robot.check()                               # raises BringUpError when a vital node has ended
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from saferule_core.errors import SaferuleError
from saferule_ros import bringup
from saferule_ros.bringup import BringUpError
from saferule_ros.lifecycle import LifecycleManager
from saferule_ros.processes import NodeProcess, stop

WATCH_S = 0.2
"""How often `saferule up` looks after its nodes [s]."""


class Stopped(SaferuleError):
    """A signal asked for the end while the nodes were coming up."""


class BringUp:
    """The nodes of the table as processes; they are active inside the `with` block and gone after it.

    `arguments` are those of the launch files, `overrides` parameters by node name (see bringup.parameters). Output
    goes to `log_file`, or to the standard output.
    """

    def __init__(
        self,
        simulation: bool,
        arguments: Mapping[str, str] | None = None,
        overrides: Mapping[str, Mapping[str, object]] | None = None,
        log_file: Path | None = None,
        without: Sequence[str] = (),
    ) -> None:
        self._arguments = {**bringup.default_arguments(simulation), **(arguments or {})}
        self._overrides = overrides or {}
        self._log_file = log_file
        entries = bringup.nodes(simulation, self._arguments)
        self._entries = tuple(node for node in entries if node.name not in without)
        self._processes: dict[str, NodeProcess] = {}
        self._missed: set[str] = set()
        self._log = sys.stdout
        self._write_lock = threading.Lock()
        self.stop_asked = threading.Event()

    def __enter__(self) -> BringUp:
        with contextlib.ExitStack() as undo:
            undo.callback(self.stop)
            self.start()
            undo.pop_all()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start the processes and take them through their transitions.

        Raises:
            BringUpError: an argument is wrong, or a node did not come up.
            Stopped: `stop_asked` was set meanwhile.
        """
        environment = bringup.node_environment()
        os.environ.update({name: value for name, value in environment.items() if name.startswith(("ROS_", "FASTDDS_"))})
        commands = {
            node.name: bringup.process_command(node, self._arguments, self._overrides) for node in self._entries
        }
        autostart = bringup.is_true(self._arguments, "autostart")
        if self._log_file is not None:
            self._log = self._log_file.open("a", encoding="utf-8")
        for name, command in commands.items():
            self._processes[name] = NodeProcess(name, command, environment, self._show)
        if autostart:
            with self._manager() as manager:
                for transition, node in bringup.transitions(self._entries):
                    manager.change(bringup.full_name(node, self._arguments), transition)

    def check(self) -> None:
        """Look whether all nodes still run; one that is not vital is reported once.

        Raises:
            BringUpError: a vital node has ended.
        """
        for node in self._entries:
            process = self._processes[node.name]
            if process.exit_code is None or node.name in self._missed:
                continue
            words = f"{node.name} ended with exit code {process.exit_code}"
            if node.vital:
                raise BringUpError(f"{words}; its last lines were\n{process.last_words()}")
            self._missed.add(node.name)
            self._show(f"[up] {words}; the others go on")

    def stop(self) -> None:
        """End all nodes: those that command the robot before the robot itself."""
        for simulated in (False, True):
            entries = [node.name for node in self._entries if node.simulated is simulated]
            stop([self._processes[name] for name in entries if name in self._processes])
        if self._log is not sys.stdout:
            self._log.close()
            self._log = sys.stdout
        self._processes.clear()

    def pids(self) -> dict[str, int]:
        """Return the process id of every node."""
        return {name: process.pid for name, process in self._processes.items()}

    def _check_coming_up(self) -> None:
        if self.stop_asked.is_set():
            raise Stopped("stopped while the nodes were coming up")
        for name, process in self._processes.items():
            if process.exit_code is not None:
                raise BringUpError(
                    f"{name} ended with exit code {process.exit_code} while the nodes were coming up; "
                    f"its last lines were\n{process.last_words()}"
                )

    @contextlib.contextmanager
    def _manager(self) -> Iterator[LifecycleManager]:
        """A short-lived node of its own ROS context: the caller may or may not have one."""
        context = Context()
        rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
        node = rclpy.create_node("saferule_up", context=context, namespace=self._arguments["namespace"])
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        ended = threading.Event()

        def spin() -> None:
            while not ended.is_set():
                executor.spin_once(timeout_sec=0.1)

        spinner = threading.Thread(target=spin, name="saferule_up", daemon=True)
        spinner.start()
        try:
            yield LifecycleManager(node, self._check_coming_up)
        finally:
            ended.set()
            spinner.join(timeout=5.0)
            executor.shutdown(timeout_sec=1.0)
            node.destroy_node()
            rclpy.try_shutdown(context=context)

    def _show(self, line: str) -> None:
        with self._write_lock, contextlib.suppress(ValueError, BrokenPipeError):
            print(line, file=self._log, flush=True)


def parser() -> argparse.ArgumentParser:
    """Return the options of `saferule up`: the arguments of the launch files."""
    options = argparse.ArgumentParser(prog="saferule up", description="start the nodes of a robot")
    options.add_argument("--simulation", action="store_true", help="with a simulated robot (as demo.launch.py)")
    options.add_argument("--without", nargs="+", default=[], metavar="NODE", help="nodes that are not to be started")
    for argument in bringup.ARGUMENTS:
        default, simulated = argument.default_for(False), argument.default_for(True)
        words = default or "none"
        if simulated != default:
            words += f"; in simulation {simulated}"
        flag = "--" + argument.name.replace("_", "-")
        options.add_argument(flag, dest=argument.name, help=f"{argument.description} (default: {words})")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the nodes until Ctrl-C or SIGTERM (0), or until they cannot go on (1, with the reason)."""
    options = vars(parser().parse_args(arguments))
    simulation, without = options.pop("simulation"), options.pop("without")
    given = {name: value for name, value in options.items() if value is not None}
    robot = BringUp(simulation, given, without=without)
    before = {
        number: signal.signal(number, lambda _number, _frame: robot.stop_asked.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        with robot:
            print("[up] all nodes are up; Ctrl-C stops them", flush=True)
            while not robot.stop_asked.wait(WATCH_S):
                robot.check()
            print("[up] stopping", flush=True)
    except Stopped:
        return 0
    except SaferuleError as error:
        print(f"saferule up: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


if __name__ == "__main__":
    sys.exit(main())
