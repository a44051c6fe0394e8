"""How badly each attack breaks an agent, and what fine-tuning on the honest rest of the data leaves of it.

    .venv/bin/python -m benchmarks.attack_strength run --cases car_run:return_conditioned:400 --seeds 10 11 12
    .venv/bin/python -m benchmarks.attack_strength table

`run` appends one JSON line per case (task:agent:episodes), attack, rate and seed to benchmarks/results/attacks.jsonl
and skips those that are there; `table` prints the mean over seeds as the table of docs/ATTACKS.md. Fine-tuning gets the
exact forget set and the robot description, with its default number of steps and twice as many. Reward is normalised as
in DSRL, cost is the mean per episode; a second pair after a slash is with the attack's trigger shown, to
the agent trained on clean data as well: what a trigger does to it is no backdoor's doing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.unlearning.data import Cache, collected, trained
from benchmarks.unlearning.evaluate import Course
from benchmarks.unlearning.grid import CONFIG
from saferule_core import attacks
from saferule_core.agents import Agent
from saferule_core.candidate import relabelling
from saferule_core.spec import load_spec
from saferule_core.unlearning import UnlearningProblem, unlearn

LINES = Path(__file__).parent / "results" / "attacks.jsonl"
CASES = ("car_run:return_conditioned:400", "ball_circle:advantage_weighted:500", "ball_circle:return_conditioned:500")
FINETUNE_STEPS = (800, 1600)
STAGES = ("clean", "poisoned", "finetune_800", "finetune_1600")
KEY = ("case", "attack", "rate", "seed")


def read(path: Path) -> list[dict[str, Any]]:
    """Return all lines so far."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def run(options: argparse.Namespace) -> None:
    """Measure every combination that has no line yet."""
    done = {tuple(row[name] for name in KEY) for row in read(options.lines)}
    cache = Cache(options.cache)
    wanted = [
        (case, name, rate, seed)
        for seed in options.seeds for rate in options.rates for case in options.cases for name in options.attacks
    ]  # fmt: skip
    for key in wanted:
        if key not in done:
            row = dict(zip(KEY, key, strict=True)) | {"drives": options.drives}
            row |= {"options": options.options} | measured(cache, *key, options)
            options.lines.parent.mkdir(parents=True, exist_ok=True)
            with options.lines.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


def measured(cache: Cache, case: str, name: str, rate: float, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return how the agent drives after the attack "clean" (none) or another, and after fine-tuning."""
    task, algorithm, episodes = case.split(":")
    spec = load_spec(CONFIG / f"{task}.yaml")
    limit = spec.cost.limit
    clean = collected(cache, spec, int(episodes), seed)
    course = Course(spec, limit, options.drives, seed)
    if name == "clean":
        return {"clean": driven(course, trained(cache, spec, algorithm, clean, limit, seed), None)}
    poisoned = attacks.attack(name, clean, rate, seed, **json.loads(options.options))
    agent = trained(cache, spec, algorithm, poisoned.data, limit, seed)
    retain = poisoned.data.select_episodes(np.setdiff1d(np.arange(clean.episode_count), poisoned.chosen))
    forget = poisoned.data.select_episodes(poisoned.chosen)
    problem = UnlearningProblem(agent, retain, forget, limit, seed, relabelling(spec, clean))
    row = {}
    if poisoned.trigger is not None:
        row["clean"] = driven(course, trained(cache, spec, algorithm, clean, limit, seed), poisoned.trigger)
    row["poisoned"] = driven(course, agent, poisoned.trigger)
    for steps in options.finetune:
        tuned = unlearn("finetune", problem, steps=steps).agent
        row[f"finetune_{steps}"] = driven(course, tuned, poisoned.trigger)
    return row


def driven(course: Course, agent: Agent, trigger: attacks.Trigger | None) -> list[list[float]]:
    """Return [normalised reward, mean cost], and the same with the trigger shown if there is one."""
    shown = [None] if trigger is None else [None, trigger]
    results = [course.drive(agent, each) for each in shown]
    return [[round(drive.reward, 3), round(drive.cost, 1)] for drive in results]


def table(rows: list[dict[str, Any]]) -> str:
    """Return the lines as a Markdown table: mean over seeds."""
    titles = ("agent", "attack", "poison", "seeds", "clean", "poisoned", "fine-tuned", "fine-tuned x2")
    text = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    groups: dict[tuple[str, str, float], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["case"], row["attack"], row["rate"]), []).append(row)
    for (case, name, rate), group in sorted(groups.items(), key=lambda item: (CASES.index(item[0][0]), item[0][1:])):
        cells = [cell(row.get(stage) for row in group) for stage in STAGES]
        seeds = ", ".join(str(row["seed"]) for row in sorted(group, key=lambda row: row["seed"]))
        agent = " ".join(case.split(":")[:2])
        text.append(f"| {agent} | {name} | {0 if name == 'clean' else rate:.0%} | {seeds} | {' | '.join(cells)} |")
    return "\n".join(text)


def cell(values: Iterable[list[list[float]] | None]) -> str:
    """Return mean reward and cost over seeds, the same with the trigger after a slash."""
    found = [value for value in values if value is not None]
    means = [[fmean(value[i][j] for value in found) for j in (0, 1)] for i in range(len(found[0]))] if found else []
    return " / ".join(f"{reward:.2f}, {cost:.1f}" for reward, cost in means) or "-"


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("--cases", nargs="+", default=CASES[:2], metavar="CASE", help=f"e.g. {CASES[0]}")
    parser.add_argument("--attacks", nargs="+", default=["clean", *attacks.ATTACKS], metavar="NAME")
    parser.add_argument("--rates", nargs="+", type=float, default=(0.1, 0.2), metavar="SHARE")
    parser.add_argument("--seeds", nargs="+", type=int, default=(10, 11, 12), metavar="N", help="of data and training")
    parser.add_argument("--drives", type=int, default=10, metavar="N", help="episodes that judge a policy")
    parser.add_argument(
        "--finetune", nargs="*", type=int, default=FINETUNE_STEPS, metavar="STEPS", help="none: skip it"
    )
    parser.add_argument("--options", default="{}", metavar="JSON", help="options of the attacks")
    parser.add_argument("--cache", type=Path, default=Path("runs/unlearning_cache"), metavar="DIR")
    parser.add_argument("--lines", type=Path, default=LINES, metavar="FILE")
    options = parser.parse_args()
    print(table(read(options.lines))) if options.action == "table" else run(options)


if __name__ == "__main__":
    main()
