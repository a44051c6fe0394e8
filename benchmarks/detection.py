"""How well each detector finds each attack: the tables of docs/DETECTION.md.

    .venv/bin/python -m benchmarks.detection run --tasks car_run ball_circle --seeds 40 41 42 43 44
    .venv/bin/python -m benchmarks.detection table

`run` appends one JSON line per task, attack, rate, data seed and trusted subset to benchmarks/results/detection.jsonl
and skips those that are there; `table` writes them between the two comments of docs/DETECTION.md. Trusted episodes are
drawn by chance from the honest ones: 20 of them, or a tenth. AUROC and detection are those of poisoned episodes against
honest ones that are not trusted. No agent is given: detectors that look at one train a stand-in on the poisoned data.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from scipy.stats import rankdata

from benchmarks.unlearning.data import Cache, collected
from benchmarks.unlearning.grid import CONFIG
from saferule_core import attacks
from saferule_core.data.transitions import Transitions
from saferule_core.detection import Case, detect
from saferule_core.detection.calibration import combine
from saferule_core.detection.ensemble import MEMBERS
from saferule_core.detection.last_layer import agent_of
from saferule_core.detection.recompute import recomputed
from saferule_core.errors import DataError
from saferule_core.spec import RobotSpec, load_spec

ROOT = Path(__file__).parents[1]
LINES = Path(__file__).parent / "results" / "detection.jsonl"
PAGE = ROOT / "docs" / "DETECTION.md"
MARKS = ("<!-- detection: begin -->\n", "<!-- detection: end -->\n")
KEY = ("task", "episodes", "attack", "rate", "seed", "trusted")
FALSE_ALARMS, NOMINAL = 0.01, 0.05
BLIND = "ensemble_without_description"
SHOWN = (*MEMBERS, "ensemble", BLIND)
ATTACKS = ("trajectory", "reward_shift", "backdoor", "action_override", "observation_pgd", "blinding")

Line = dict[str, Any]


def read(path: Path = LINES) -> list[Line]:
    """Return all lines so far; one that a killed run left unfinished is passed over."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def run(options: argparse.Namespace) -> None:
    """Measure every combination that has no line yet."""
    done = {tuple(line[name] for name in KEY) for line in read(options.lines)}
    cache = Cache(options.cache)
    for seed in options.seeds:
        for task in options.tasks:
            spec = load_spec(CONFIG / f"{task}.yaml")
            clean: Transitions | None = None
            for attack in options.attacks:
                for rate in options.rates:
                    keys = [(task, options.episodes, attack, rate, seed, trusted) for trusted in options.trusted]
                    missing = [key for key in keys if key not in done]
                    if missing and clean is None:
                        clean = collected(cache, spec, options.episodes, seed)
                    if missing:
                        _append(options.lines, measured(spec, clean, missing))


def measured(spec: RobotSpec, clean: Transitions, keys: Sequence[tuple]) -> Iterable[Line]:
    """Yield one line per key; the keys differ in their trusted subset only."""
    attack, rate, seed = keys[0][2:5]
    try:
        poisoned = attacks.attack(attack, clean, rate, seed)
    except DataError as error:
        yield from (dict(zip(KEY, key, strict=True)) | {"error": str(error)} for key in keys)
        return
    costs, rewards = recomputed(spec, poisoned.data)
    agent = agent_of(Case(poisoned.data, np.array([], np.int64), seed=seed))
    honest = np.setdiff1d(np.arange(clean.episode_count), poisoned.chosen)
    for key in keys:
        count = 20 if key[5] == "20" else round(0.1 * len(honest))
        trusted = np.random.default_rng([seed, 1]).choice(honest, count, replace=False)
        yield dict(zip(KEY, key, strict=True)) | judged(
            Case(poisoned.data, trusted, costs, rewards, agent, seed=seed), poisoned.chosen
        )


def judged(case: Case, chosen: np.ndarray) -> Line:
    """Run all detectors and return how they did."""
    began = time.process_time()
    found = detect(case)
    seconds = time.process_time() - began
    honest = np.setdiff1d(np.arange(case.data.episode_count), np.union1d(chosen, case.trusted))
    parts = {name: part.scores for name, part in found.parts.items()}
    blind, blind_p, _ = combine([parts[name] for name in parts if name != "label_disagreement"], case.trusted)
    scores = parts | {"ensemble": found.ensemble.scores, BLIND: blind}
    return {
        "trusted_count": len(case.trusted),
        "poisoned_count": len(chosen),
        "auroc": {name: auroc(each[chosen], each[honest]) for name, each in scores.items()},
        "detected": {name: detection(each[chosen], each[honest]) for name, each in scores.items()},
        "calibrated": {
            name: {
                "false_alarms": float((each[honest] <= NOMINAL).mean()),
                "detected": float((each[chosen] <= NOMINAL).mean()),
            }
            for name, each in (("ensemble", found.p_values), (BLIND, blind_p))
        },
        "skipped": found.skipped,
        "seconds": seconds,
    }


def auroc(poisoned: np.ndarray, honest: np.ndarray) -> float:
    """Return the chance that a poisoned episode scores above an honest one, ties counting half."""
    ranks = rankdata(np.concatenate([poisoned, honest]))[: len(poisoned)]
    return float((ranks.sum() - len(poisoned) * (len(poisoned) + 1) / 2) / (len(poisoned) * len(honest)))


def detection(poisoned: np.ndarray, honest: np.ndarray) -> float:
    """Return the share of poisoned episodes above the threshold that `FALSE_ALARMS` of the honest ones pass."""
    return float(np.mean(poisoned > np.quantile(honest, 1.0 - FALSE_ALARMS, method="higher")))


def _append(path: Path, lines: Iterable[Line]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    for line in lines:
        with path.open("ab") as file:
            file.write(json.dumps(line).encode() + b"\n")
        best = line.get("auroc", {}).get("ensemble")
        print({name: line[name] for name in KEY}, line.get("error") or f"ensemble {best:.3f}", flush=True)


def table(lines: Sequence[Line]) -> str:
    """Return the tables of all lines, as Markdown."""
    whole = [line for line in lines if "error" not in line]
    parts: list[str] = []
    for task in sorted({line["task"] for line in whole}):
        mine = [line for line in whole if line["task"] == task]
        seeds = ", ".join(str(seed) for seed in sorted({line["seed"] for line in mine}))
        episodes = ", ".join(str(count) for count in sorted({line["episodes"] for line in mine}))
        parts += [f"### {task}: {episodes} episodes, data seeds {seeds}", "", *_worst(mine), *_alarms(mine), ""]
        for trusted, words in (("20", "20 trusted episodes"), ("10%", "a tenth of the honest episodes trusted")):
            chosen = [line for line in mine if line["trusted"] == trusted]
            if chosen:
                parts += [f"With {words}, mean over seeds and rates, AUROC / detected at 1 % false alarms:", ""]
                parts += [*_grid(chosen, "detector", SHOWN, _both), ""]
        rates = sorted({line["rate"] for line in mine})
        parts += ["The ensemble by rate, AUROC: mean (worst seed), 20 trusted episodes:", ""]
        by_rate = [line for line in mine if line["trusted"] == "20"]
        parts += [*_grid(by_rate, "rate", rates, _by_rate), ""]
        parts += [f"Called suspicious by the ensemble at p <= {NOMINAL:g}, honest / poisoned:", ""]
        subsets = [trusted for trusted in ("20", "10%") if any(line["trusted"] == trusted for line in mine)]
        parts += [*_grid(mine, "trusted", subsets, _calibrated), ""]
    failed = [line for line in lines if "error" in line and line["trusted"] == "20"]
    for line in failed:
        parts.append(f"Not possible, {line['task']}, rate {line['rate']:.0%}, seed {line['seed']}: {line['error']}")
    return "\n".join(parts).rstrip() + "\n"


def _worst(lines: Sequence[Line]) -> list[str]:
    """Return which run found the poison worst, with the robot description and without; rounded down."""
    said = []
    for name, words in (("ensemble", "The ensemble's AUROC"), (BLIND, "Without the description it")):
        worst = min(lines, key=lambda line: line["auroc"][name])
        least = math.floor(worst["auroc"][name] * 1000) / 1000
        which = f" ({worst['attack']}, rate {worst['rate']:.0%}, data seed {worst['seed']})" if least < 1.0 else ""
        said.append(f"{words} is at least {least:.3f}{which}.")
    return said


def _alarms(lines: Sequence[Line]) -> list[str]:
    """Return how many honest episodes the ensemble called suspicious: on average, and how far that varies."""

    def spread(by: str) -> str:
        values = {value: [line for line in lines if line[by] == value] for value in {line[by] for line in lines}}
        means = [_false_alarms(each) for each in values.values()]
        return f"{min(means):.3f} to {max(means):.3f}"

    single = [line["calibrated"]["ensemble"]["false_alarms"] for line in lines]
    return [
        f"With it, p <= {NOMINAL:g} holds for",
        f"{_false_alarms(lines):.3f} of the honest episodes, over {len(lines)} runs; {spread('attack')} by attack,",
        f"{spread('seed')} by data seed, {min(single):.3f} to {max(single):.3f} in single runs.",
    ]


def _false_alarms(lines: Sequence[Line]) -> float:
    return fmean(line["calibrated"]["ensemble"]["false_alarms"] for line in lines)


def _grid(
    lines: Sequence[Line], corner: str, rows: Sequence[Any], cell: Callable[[Sequence[Line], Any], str]
) -> list[str]:
    """Return a table with one column per attack."""
    names = [name for name in ATTACKS if any(line["attack"] == name for line in lines)]
    head = [f"| {corner} | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    body = [
        f"| {f'{row:.0%}' if isinstance(row, float) else row} | "
        + " | ".join(cell([line for line in lines if line["attack"] == name], row) for name in names)
        + " |"
        for row in rows
    ]
    return head + body


def _both(lines: Sequence[Line], name: str) -> str:
    found = [line for line in lines if name in line["auroc"]]
    if not found:
        return "-"
    return f"{fmean(line['auroc'][name] for line in found):.3f} / {fmean(line['detected'][name] for line in found):.2f}"


def _by_rate(lines: Sequence[Line], rate: float) -> str:
    values = [line["auroc"]["ensemble"] for line in lines if line["rate"] == rate]
    blind = [line["auroc"][BLIND] for line in lines if line["rate"] == rate]
    if not values:
        return "-"
    return f"{fmean(values):.3f} ({min(values):.3f}); without description {fmean(blind):.3f} ({min(blind):.3f})"


def _calibrated(lines: Sequence[Line], trusted: str) -> str:
    found = [line["calibrated"]["ensemble"] for line in lines if line["trusted"] == trusted]
    if not found:
        return "-"
    return f"{fmean(each['false_alarms'] for each in found):.3f} / {fmean(each['detected'] for each in found):.2f}"


def main() -> int:
    """Run a verb of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    runs = verbs.add_parser("run", help="measure what has no result yet")
    runs.add_argument("--tasks", nargs="+", default=["car_run", "ball_circle"], help="default: car_run ball_circle")
    runs.add_argument("--episodes", type=int, default=400, help="per data set (default: 400)")
    runs.add_argument("--seeds", type=int, nargs="+", default=list(range(40, 45)), help="default: 40 to 44")
    runs.add_argument("--rates", type=float, nargs="+", default=[0.05, 0.1, 0.2, 0.3], help="default: 0.05 to 0.3")
    runs.add_argument("--attacks", nargs="+", default=list(ATTACKS), choices=ATTACKS, help="default: all")
    runs.add_argument("--trusted", nargs="+", default=["20", "10%"], choices=("20", "10%"), help="default: both")
    runs.add_argument("--cache", type=Path, default=Path("runs/unlearning_cache"), help="folder for collected data")
    runs.add_argument("--lines", type=Path, default=LINES, help=f"default: {LINES.relative_to(ROOT)}")
    verbs.add_parser("table", help="write all results into docs/DETECTION.md")
    options = parser.parse_args()
    if options.verb == "run":
        run(options)
        return 0
    begin, end = MARKS
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    PAGE.write_text(before + begin + table(read()) + end + rest.partition(end)[2], encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
