"""A process that runs one cell: reads a request from stdin, writes lines of JSON to stdout.

    python -m benchmarks.unlearning.worker < request.json

Request: {"cell": {...}, "methods": [...], "cache": folder, "nice": int}.
Answers: {"progress": words}, {"line": {...}} per method, at the end {"done": true}, or {"error": words} and status 1.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import IO, Any

PROGRESS_S = 0.5


def main() -> int:
    """Serve one request; return the exit status."""
    answers = _private_stdout()
    request = json.loads(sys.stdin.buffer.read())
    os.nice(int(request.get("nice", 0)))

    import torch

    from benchmarks.unlearning.data import Cache
    from benchmarks.unlearning.experiment import Experiment
    from benchmarks.unlearning.grid import cell_from
    from saferule_core.errors import SaferuleError

    torch.set_num_threads(1)
    try:
        experiment = Experiment(cell_from(request["cell"]), Cache(request["cache"]), _reporting(answers))
        for line in experiment.lines(request["methods"]):
            _send(answers, {"line": line})
        _send(answers, {"done": True})
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
    answers.write(json.dumps(answer).encode() + b"\n")
    answers.flush()


def _reporting(answers: IO[bytes]) -> Any:
    """Return a progress function that sends words, at most every `PROGRESS_S` seconds for the same phase."""
    last = {"phase": "", "until": 0.0}

    def report(phase: str, fraction: float, message: str = "", **losses: float) -> None:
        now = time.monotonic()
        if phase != last["phase"] or now >= last["until"]:
            last.update(phase=phase, until=now + PROGRESS_S)
            _send(answers, {"progress": f"{phase} {fraction:.0%} {message}".rstrip()})

    return report


if __name__ == "__main__":
    sys.exit(main())
