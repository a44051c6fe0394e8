"""Parts of pages for people that a benchmark writes: what lies between two comments with its name.

    fill(README, "unlearning", table)        # between <!-- unlearning: begin --> and <!-- unlearning: end -->
"""

from __future__ import annotations

from pathlib import Path

from saferule_core.errors import DataError

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def fill(page: Path, name: str, text: str) -> None:
    """Replace the part of a page that bears a name.

    Raises:
        DataError: the page has no such part.
    """
    begin, end = (f"<!-- {name}: {edge} -->\n" for edge in ("begin", "end"))
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise DataError(f"{page.name}: expected the lines {begin.strip()} and {end.strip()}, found no such pair")
    page.write_text(before + begin + text.rstrip("\n") + "\n" + end + after, encoding="utf-8")
