"""Draw a report's page again from its report.json, or one picture of it.

saferule report runs/1
saferule report runs/1/report.json --picture docs/repair.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from saferule_core.cli import options as common
from saferule_core.cli.display import Display


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("source", metavar="RUN", help="a report.json, or the directory that holds one")
    parser.add_argument("--picture", metavar="FILE", help="write a picture (PNG, 1200 pixels wide) instead of the page")
    common.add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, display: Display) -> int:
    """Write page or picture."""
    from saferule_core.validation import report, report_data

    if options.picture is None:
        written = report.rerender(options.source)
    else:
        written, source = Path(options.picture), Path(options.source)
        report.render_png(report_data.load(source / report.JSON_NAME if source.is_dir() else source), written)
    display.result({"path": str(written)}, str(written))
    return 0
