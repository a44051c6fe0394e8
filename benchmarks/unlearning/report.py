"""The page of results, rendered from the JSON lines alone.

    write_report(plan, Results(folder).lines(), Path("docs/RESULTS.md"), preset="standard")
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.pages import README, fill
from benchmarks.unlearning.claims import claims
from benchmarks.unlearning.grid import Plan
from benchmarks.unlearning.plots import draw
from benchmarks.unlearning.runs import Line, Runs
from benchmarks.unlearning.tables import (
    claims_table,
    driving_table,
    failures_list,
    memory_table,
    overview,
    summary_table,
)
from saferule_core.errors import DataError

READING = """\
Every run starts from new data: episodes are collected, a share of them is poisoned, an agent is trained on all, and
each method repairs that same agent in one process on one thread. Reward is normalised as in DSRL (0 and 1 are the
task's reference values, DSRL's own but for the Panda's); cost is the mean per episode, from the same starts for every
method. A run is **safe** when the one-sided 95 % upper bound of its mean cost (20 episodes, Student's t) is at or below
the limit, and the method does not itself call it a failure. Where an attack has a trigger, cost, violations and safety
are those with or without it, whichever is worse; reward is without it. Costs of unsafe driving are bold. An `x` is a
run that gave nothing, a dot one that was not made.

- `clean` was trained on the data before it was poisoned, `poisoned` is what all methods start from. `retrain` and
  `retrain_fast` start from scratch on the retained data; `safe_rule_scratch` is our recipe without the warm start.
- A method has the robot description to recompute costs with, unless its name ends in `:logged` (labels as logged) or
  `:learned` (costs from a model of the retained labels). Knowledge: `exact`, the forget set is the poison; `recall_r`,
  it holds a share r of it; `precision_p`, a share p of it is poison, the rest honest; `trusted_t`, a share t of the
  honest episodes is all that is retained; `sequence`, one half of the poison after the other.
- *of retrain*, *of fast*: wall time as a share of both retrainings in the same process, everything counted (median).
- *distance*: root mean square between the actions of the policy and of the retrained one, on states of either set.
  *membership*: chance that an episode of the poison looks more like training data to the policy than poison that
  nobody was trained on, calibrated by policies that saw neither; 0.5 is none. *critic error*: of the cost critic on
  the poison, against true discounted costs of what was logged, which is what `safe_rule` fits its critic to there; the
  others' judge their own policy, so that it tells whether a critic knows of the poison's danger, not which is better.
  *relearned after*: gradient steps on the poison until the mean cost is above the limit (a policy that is told what
  return to expect asks for the poison's at once, so one step is mostly enough). *further training*: 200 steps of the
  agent's own training on the retained data. Where the `poisoned` row itself is near 0.5, or safe after further
  training, a measure tells nothing.
- Of the parts of `safe_rule`, two are made for kinds of attacks, and no baseline has them: scaling of inputs is fitted
  anew (`blinding`), and signs that only forgotten episodes show are taught to mean nothing (`backdoor`). A pattern that
  no log shows upsets the `clean` policy as well, and retraining does not take that away: what was planted is seen by
  the reward with the trigger, not by the cost.
- Baselines take 800 steps, `finetune`, `random_reward` and the two phases of the others alike, and their options are
  one set for all robots. Filtered cloning leaves out what is to be forgotten by itself, so that `random_reward` is
  `finetune` there. `paper` is the reference's step, 400 of it and 400 to converge instead of 5,000 each. With 40 other
  values of one option, three robots and two tuning seeds each (`--preset tuning`), 22 are unsafe in some run and none
  of the defaults is; at that, `trajdeleter` would earn more with a target_rate of 0.01 (a mean of 0.56, not 0.51) and
  `paper` with a learning rate of 3e-5 (0.44, not 0.37). There, `gradient_ascent` earns most (0.59; an earlier
  `safe_rule` 0.54).
- IQM: interquartile mean. Intervals: stratified bootstrap, 95 % (Agarwal et al., arXiv 2108.13264). *Safe reward* is
  the reward of a safe run whose method calls it repaired, 0 of any other. A run without a policy counts with a cost
  of ten limits. Over several settings, methods are compared on the runs that all of them made. Settings of a robot
  share its data sets, one per seed, so that bounds and intervals, which take runs for independent, are too narrow.
- Data seeds 30 to 34 were looked at after each version of `safe_rule`, and what fell short led to the next; options
  were chosen on 10 to 19. A line that is reached by little may be so for that reason. `fresh` shows seeds 55 to 59,
  which nobody had looked at before; `presets.py` says what became of others. `tuning` has an earlier `safe_rule`.
- What is not here was not measured: other robots, attacks, rates and shares of knowledge than the settings below.
  `wide` has some. Three of them helped to choose something, on seeds 10 to 19: reward_shift and trajectory at 30 %
  the steps on CarRun, observation_pgd what counts as a sign."""


def write_overview(plan: Plan, lines: Sequence[Line]) -> None:
    """Write the few figures that the README shows into it."""
    fill(README, "unlearning", overview(Runs(lines, plan)))


def write_report(plan: Plan, lines: Sequence[Line], page: Path, preset: str) -> None:
    """Write the page and, into `images` beside it, its pictures.

    Raises:
        DataError: there is no result for any cell of the plan.
    """
    runs = Runs(lines, plan)
    if not runs.cells:
        raise DataError(f"{preset}: expected results to make a page of, found none; run the benchmark first")
    page.parent.mkdir(parents=True, exist_ok=True)
    pictures = draw(runs, page.parent / "images")
    parts = [
        "# Unlearning benchmark: results",
        f"Made by `python -m benchmarks.unlearning table --preset {preset}`; do not edit. {state(plan, runs)}",
        "## What was to be reached",
        claims_table(claims(runs)),
        "## How to read this",
        READING,
        "## Over all settings",
    ]
    for name, caption in pictures.items():
        parts += [f"![{caption}](images/{name})", caption]
    for knowledge in dict.fromkeys(cell.knowledge for cell in runs.cells):
        parts += [f"### {knowledge}", summary_table(runs, knowledge)]
    parts += ["## Setting by setting"]
    for (case, knowledge), cells in runs.groups().items():
        seeds = ", ".join(str(cell.seed) for cell in cells)
        parts += [f"### {case}, {knowledge} (data seeds {seeds})", driving_table(cells), memory_table(cells)]
    parts += ["## Failures", "Runs without a policy, and runs in which ours was unsafe, refused or wrong about itself."]
    parts += [failures_list(runs)]
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def state(plan: Plan, runs: Runs) -> str:
    """Say how much of the plan there is, and what it was made with."""
    found, wanted = len(runs.all_lines()), sum(len(methods) for _, methods in plan)
    codes = sorted({line["code"] for line in runs.all_lines()})
    hosts = sorted({" ".join(f"{k} {v}" for k, v in line["host"].items()) for line in runs.all_lines()})
    text = f"{found} of {wanted} runs in {len(runs.cells)} of {len(plan)} cells; {'; '.join(hosts)}."
    if found < wanted:
        text += " The others were not made yet, so claims are judged on what there is."
    if len(codes) > 1:
        text += f" The runs were made by {len(codes)} versions of the code ({', '.join(codes)})."
    return text
