"""What the runtime costs and how it keeps time: the figures of docs/RUNTIME.md.

    python -m benchmarks.runtime inference      # a minute: each policy family beside a plain numpy product
    python -m benchmarks.runtime lateness       # ticks at 50 to 500 Hz: idle, during unlearning, during validation
    python -m benchmarks.runtime swaps          # from request to answer
    python -m benchmarks.runtime stops          # from a broken limit to the safe command
    python -m benchmarks.runtime cancels        # from cancelling a request to its end
    python -m benchmarks.runtime all --out benchmarks/results/runtime.jsonl

What is compared is measured side by side in one run; the load of the machine stands beside every figure. Where that is
allowed, robot and nodes run at niceness -10: the figures are about them, not about the machine's other users.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from benchmarks import runtime_inference

RATES_HZ = (50.0, 100.0, 200.0, 500.0)


def measure(what: str, options: argparse.Namespace) -> list[dict[str, object]]:
    """Return the rows of one part."""
    if what == "inference":
        return runtime_inference.measure()
    from benchmarks import runtime_loop, runtime_requests

    if what == "lateness":
        return runtime_loop.lateness(tuple(options.rates), options.seconds, options.rounds, options.realtime_priority)
    module = runtime_requests if what == "cancels" else runtime_loop
    return [getattr(module, what)(options.count)]


def main() -> None:
    parts = ("inference", "lateness", "swaps", "stops", "cancels")
    options = argparse.ArgumentParser(prog="python -m benchmarks.runtime", description=__doc__.splitlines()[0])
    options.add_argument("part", choices=(*parts, "all"))
    options.add_argument("--rates", type=float, nargs="+", default=RATES_HZ, help="of the control loop [Hz]")
    options.add_argument("--seconds", type=float, default=5.0, help="length of a block of `lateness` [s]")
    options.add_argument("--rounds", type=int, default=3, help="blocks per condition of `lateness`")
    options.add_argument("--realtime-priority", type=int, default=0, help="of the executor, in `lateness`")
    options.add_argument("--count", type=int, default=100, help="swaps, stops, and cancelled requests")
    options.add_argument("--out", type=Path, help="file to append the rows to, as lines of JSON")
    chosen = options.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for part in parts if chosen.part == "all" else (chosen.part,):
        before = os.getloadavg()[0]
        for row in measure(part, chosen):
            line = {"part": part, **row, "load_average": [round(before, 1), round(os.getloadavg()[0], 1)]}
            print("  ".join(f"{name} {value}" for name, value in line.items()), flush=True)
            if chosen.out is not None:
                with chosen.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
