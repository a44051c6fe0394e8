"""What the fault tests found, as lines of JSON: printed as a table by `python test/faults/figures.py FILE`.

    record("kills", {"kills": 200, "half_written_versions_visible": 0})

SAFERULE_SOAK=1 asks for the long form of the tests, SAFERULE_FAULT_FIGURES names the file; without it nothing is kept.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

LONG = os.environ.get("SAFERULE_SOAK", "") == "1"


def times(short: int, long: int) -> int:
    """Return how often to repeat something, by the form of the tests."""
    return long if LONG else short


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """Return count, median, 95th percentile and maximum."""
    if not values:
        return {"count": 0}
    middle, high = np.percentile(values, [50, 95])
    return {
        "count": len(values), "p50": round(float(middle), digits), "p95": round(float(high), digits),
        "max": round(float(max(values)), digits),
    }  # fmt: skip


def record(name: str, values: Mapping[str, object]) -> None:
    """Keep what a test found, with the load of the machine beside it."""
    path = os.environ.get("SAFERULE_FAULT_FIGURES")
    if not path:
        return
    line = {"test": name, "form": "long" if LONG else "short", **values, "load_average": os.getloadavg()[0]}
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def main(path: str) -> None:
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        found = json.loads(line)
        form, load = found.pop("form"), found.pop("load_average")
        print(f"{found.pop('test')} ({form} form, load {load:.1f} on {os.cpu_count()} cores)")
        for name, value in found.items():
            shown = ", ".join(f"{key} {number}" for key, number in value.items()) if isinstance(value, dict) else value
            print(f"    {name.replace('_', ' '):44} {shown}")


if __name__ == "__main__":
    main(sys.argv[1])
