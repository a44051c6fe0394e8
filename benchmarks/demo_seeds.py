"""The demo over several seeds, each with new data: the tables of docs/DEMO.md.

    .venv/bin/python -m benchmarks.demo_seeds run --robot ball --seeds 10 11 12 13 14
    .venv/bin/python -m benchmarks.demo_seeds table

`run` appends one JSON line per seed to benchmarks/results/demo.jsonl and skips seeds that are there; `table` writes all
lines into that page, between its two `demo_seeds` comments. Each run is the whole demo, nodes and all, and besides
trains on the clean data and retrains on the retained data while the robot drives, so that all times are taken under the
same load.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import fmean

from benchmarks.pages import ROOT, fill

RESULTS = Path(__file__).parent / "results"
LINES = RESULTS / "demo.jsonl"
PAGE = ROOT / "docs" / "DEMO.md"

COLUMNS = (
    ("seed", "{seed}"),
    ("cost: poisoned", "{cost_poisoned:.1f}"),
    ("repaired", "{cost_repaired:.2f}"),
    ("upper 95 %", "{cost_repaired_upper:.2f}"),
    ("live before", "{live_cost_before:.1f}"),
    ("live after", "{live_cost_after:.1f}"),
    ("retrained", "{cost_retrained:.1f}"),
    ("clean", "{cost_clean:.1f}"),
    ("reward: poisoned", "{reward_poisoned:.0f}"),
    ("repaired", "{reward_repaired:.0f}"),
    ("retrained", "{reward_retrained:.0f}"),
    ("clean", "{reward_clean:.0f}"),
    ("repaired / clean", "{reward_ratio:.3f}"),
    ("seconds: unlearning", "{unlearning_seconds:.2f}"),
    ("retraining", "{retrained_seconds:.1f}"),
    ("share", "1/{speedup:.1f}"),
    ("missed around swap: ticks", "{missed_ticks_around_swap}"),
    ("commands", "{missed_commands_around_swap}"),
    ("ticks in all", "{ticks}"),
)


def read() -> list[dict]:
    """Return all results so far, in order of robot and seed."""
    lines = LINES.read_text(encoding="utf-8").splitlines() if LINES.exists() else []
    return sorted((json.loads(line) for line in lines), key=lambda row: (row["robot_name"], row["seed"]))


def run(robot: str, seeds: list[int], out: Path) -> int:
    """Run the demo for every seed that has no result yet; return how many failed."""
    RESULTS.mkdir(exist_ok=True)
    done = {(row["robot_name"], row["seed"]) for row in read()}
    failures = 0
    for seed in seeds:
        if (robot, seed) in done:
            print(f"{robot}, seed {seed}: there is a result already")
            continue
        folder = out / f"{robot}_{seed}"
        command = [sys.executable, "-m", "saferule_ros.demo", "--robot", robot, "--seed", str(seed)]
        ended = subprocess.run([*command, "--out", str(folder), "--compare"], check=False)
        row = {"robot_name": robot, "seed": seed, "exit": ended.returncode}
        if ended.returncode == 0:
            row |= json.loads((folder / "summary.json").read_text(encoding="utf-8"))
            row.pop("report")
        failures += ended.returncode != 0
        with LINES.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
    return failures


def table(rows: list[dict]) -> str:
    """Return one Markdown table per robot, every seed shown, runs that failed too."""
    parts = []
    for robot in sorted({row["robot_name"] for row in rows}):
        mine = [row for row in rows if row["robot_name"] == robot]
        whole = [row for row in mine if row["exit"] == 0]
        for row in whole:
            row["reward_ratio"] = row["reward_repaired"] / row["reward_clean"]
            row["speedup"] = row["retrained_seconds"] / row["unlearning_seconds"]
        parts += [f"### {whole[0]['robot'] if whole else robot}", ""]
        parts += ["| " + " | ".join(title for title, _ in COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
        for row in mine:
            cells = [text.format(**row) for _, text in COLUMNS] if row["exit"] == 0 else [str(row["seed"]), "failed"]
            parts.append("| " + " | ".join(cells) + " |")
        if whole:
            ratio = fmean(row["reward_repaired"] for row in whole) / fmean(row["reward_clean"] for row in whole)
            parts += ["", (
                f"{len(whole)} of {len(mine)} runs came to their end. Poisoned cost at least "
                f"{min(row['cost_poisoned'] / row['cost_limit'] for row in whole):.1f} times the limit; "
                f"repaired cost at most {max(row['cost_repaired'] for row in whole):.2f}; "
                f"mean reward {100 * ratio:.1f} % of the policy trained on clean data, worst seed "
                f"{100 * min(row['reward_ratio'] for row in whole):.1f} %; unlearning took at most "
                f"1/{min(row['speedup'] for row in whole):.1f} of standard retraining's time; "
                f"{sum(row['missed_ticks_around_swap'] for row in whole)} ticks and "
                f"{sum(row['missed_commands_around_swap'] for row in whole)} commands were missed around the swaps."
            )]  # fmt: skip
        parts.append("")
    return "\n".join(parts)


def main() -> int:
    """Run a verb of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo_seeds", description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    runs = verbs.add_parser("run", help="run the demo for seeds that have no result yet")
    runs.add_argument("--robot", default="ball", help="ball, car or car_circle (default: ball)")
    runs.add_argument("--seeds", type=int, nargs="+", default=list(range(10, 15)), help="default: 10 to 14")
    runs.add_argument("--out", type=Path, default=Path("runs/seeds"), help="folder for the runs (default: runs/seeds)")
    verbs.add_parser("table", help="write all results into docs/DEMO.md")
    chosen = parser.parse_args()
    if chosen.verb == "run":
        return run(chosen.robot, chosen.seeds, chosen.out)
    text = table(read())
    fill(PAGE, "demo_seeds", text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
