"""The unlearning benchmark: poison an agent's data, let methods repair it, and measure what came out.

    python -m benchmarks.unlearning list  --preset standard          # its cells, and what of them is done
    python -m benchmarks.unlearning run   --preset standard          # resumable, one process per core
    python -m benchmarks.unlearning table --preset standard          # docs/RESULTS.md with its plots

grid, presets    what is run: cells of task x agent x attack x rate x knowledge x data seed, and the methods in each
jobs, worker     one process per cell; results.py keeps one JSON line per cell and method
data, knowledge  poisoned data, trained agents, and what an operator knows of the poison
experiment, measure    one cell: all methods on the same data, and the measures of each policy
runs, statistics, claims, tables, plots, report      from the lines to docs/RESULTS.md
"""
