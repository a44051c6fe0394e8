"""A request to the unlearning_server: from its message to the worker's command line, and from the outcome to a result.

    job = Job(request, request_id, feedback)
    arguments = worker_arguments(job, incumbent_id, folder, settings)
    fill(result, outcome)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from saferule.action import Unlearn as UnlearnAction
from saferule.msg import UnlearnRequest, UnlearnResult
from saferule_core import repair_data
from saferule_core.errors import Cancelled, DataError
from saferule_core.turns import Turn
from saferule_ros.worker import Worker

PHASES = {
    name: getattr(UnlearnAction.Feedback, f"PHASE_{name.upper()}")
    for name in ("waiting", "loading", "detecting", "unlearning", "validating", "storing", "swapping")
}
FIGURES = (
    "incumbent_cost", "candidate_cost", "candidate_cost_upper", "incumbent_reward", "candidate_reward",
    "reward_reference", "cost_limit", "unlearning_seconds", "validation_seconds",
)  # fmt: skip


@dataclass
class Job:
    """One request from its arrival to its end.

    feedback: gets events {"phase", "fraction", "message", "losses", "detected"}. turn: its place in the line, if it has
    one. phase: what is being done. stop_reason: set when it is to end before its time; for its message.
    resumable: what it has done is kept then. detected: suspects that are forgotten, in words.
    """

    request: UnlearnRequest
    request_id: str
    feedback: Callable[[Mapping], None]
    turn: Turn | None = None
    phase: str = "waiting"
    stop_reason: str = ""
    resumable: bool = False
    worker: Worker | None = None
    detected: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def stop(self, reason: str, resumable: bool = False) -> None:
        """Let it end at once, wherever it is; resumable: what it has done so far is kept. From any thread."""
        self.stop_reason, self.resumable = self.stop_reason or reason, resumable
        self.stopped.set()
        worker = self.worker
        if worker is not None:
            worker.cancel()

    def check(self) -> None:
        """Raise Cancelled if it is to end."""
        if self.stopped.is_set():
            raise Cancelled(self.stop_reason)


@dataclass(frozen=True)
class Settings:
    """What the server decides, not a caller: which robot, which files may be read and how, and with what means."""

    spec: str
    store: str
    workers: int
    threads: int
    device: str = "cpu"
    bag_roots: tuple[str, ...] = ()
    message_types: tuple[str, ...] = ()
    bag_cache: str = ""
    tolerate_truncated: bool = False

    def arguments(self) -> list[str]:
        """Return the options of `saferule repair` for it."""
        arguments = [
            "--spec", self.spec, "--store", self.store, "--workers", str(self.workers), "--threads", str(self.threads),
            f"--device={self.device}",
        ]  # fmt: skip
        for option, values in (("--bag-root", self.bag_roots), ("--message-types", self.message_types)):
            arguments += [f"{option}={value}" for value in values]
        if self.bag_cache:
            arguments.append(f"--bag-cache={Path(self.bag_cache).expanduser()}")
        return [*arguments, "--tolerate-truncated"] if self.tolerate_truncated else arguments


def worker_arguments(job: Job, incumbent_id: str, folder: Path, settings: Settings) -> list[str]:
    """Return the command line of the worker; `folder` keeps its phases, and is where one that broke off goes on.

    Values stand behind an equals sign where they come from the caller: none of them may be taken for an option.

    Raises:
        DataError: a bag is named by an empty text.
    """
    request = job.request
    if request.resume:
        return ["repair", *settings.arguments(), f"--resume={folder}"]
    arguments = [
        "repair", *settings.arguments(), f"--work={folder}", "--policy", incumbent_id,
        f"--method={request.method or 'safe_rule'}", "--seed", str(request.seed),
        f"--min-reward-kept={request.min_reward_kept}", f"--confidence={request.confidence}",
        "--episodes", str(request.validation_episodes), f"--asked-by=unlearning_server, request {job.request_id}",
    ]  # fmt: skip
    if request.cost_limit > 0.0:
        arguments.append(f"--cost-limit={request.cost_limit}")
    for option, bags in (
        ("--forget", request.forget_bags), ("--retain", request.retain_bags), ("--trusted", request.trusted_bags)
    ):  # fmt: skip
        arguments += [f"{option}={_path(bag)}" for bag in bags]
    for each in request.forget_ranges:
        option = "--forget-range" if each.from_beginning else "--forget-stamps"
        arguments += [option, _path(each.bag), repr(each.start), repr(each.end)]
    if request.suspects_file:
        arguments.append(f"--suspects={_path(request.suspects_file)}")
    if request.detect:
        arguments += ["--detect", f"--max-share={request.detect_max_share}"]
        arguments.append(f"--false-alarm-rate={request.detect_false_alarm_rate}")
    return [*arguments, "--forget-untrusted"] if request.forget_untrusted else arguments


def _path(bag: str) -> str:
    if not bag:
        raise DataError("bags: expected the path of a bag, found an empty text")
    return f"./{bag}" if bag.startswith("-") else bag


def feedback_message(event: Mapping) -> UnlearnAction.Feedback:
    """Return an event as the action's feedback."""
    losses = {name: value for name, value in (event.get("losses") or {}).items() if value is not None}
    return UnlearnAction.Feedback(
        phase=PHASES.get(event["phase"], UnlearnAction.Feedback.PHASE_LOADING),
        progress=float(event["fraction"]),
        message=event.get("message", ""),
        loss_names=list(losses),
        loss_values=[float(value) for value in losses.values()],
        detected=list(event.get("detected", ())),
    )


def detected_in(folder: Path) -> list[str]:
    """Return the suspects that a running request forgets, as its checkpoints have them, in words."""
    about = repair_data.describe(folder)
    return [] if about is None else [f"{each.bag}: {each.episode}: {each.reason}" for each in about.detected]


def empty_result() -> UnlearnResult:
    """Return a result in which nothing has been measured."""
    result = UnlearnResult(**{name: float("nan") for name in FIGURES})
    result.unlearning_seconds = result.validation_seconds = 0.0
    return result


def fill(result: UnlearnResult, outcome: Mapping) -> None:
    """Put the worker's result into the answer."""
    for name in FIGURES:
        if outcome.get(name) is not None:
            setattr(result, name, float(outcome[name]))
    result.candidate_id = outcome.get("candidate_id") or ""
    result.report_path = outcome.get("report_path") or ""
    result.detected = list(outcome.get("detected") or ())
    result.message = outcome["message"]


def paths(values: Sequence[str]) -> tuple[str, ...]:
    """Return a parameter of several paths without empty ones: ROS has no empty list with a type."""
    return tuple(str(Path(value).expanduser()) for value in values if value)
