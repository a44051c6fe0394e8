"""Output folders that appear whole or not at all.

with filled("logs", "bags") as (working, final):
    write_into(working)                  # final is logs; it appears when the block ends without an error
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from saferule_core.cli.options import new_directory
from saferule_core.errors import DataError


@contextmanager
def filled(path: str | Path, what: str) -> Iterator[tuple[Path, Path]]:
    """Give a folder to write into and the path that it will have; both lie in the same parent directory.

    Raises:
        DataError: something is there already, or it cannot be written.
    """
    final = new_directory(str(path), what)
    working = final.with_name(f".{final.name}-{secrets.token_hex(4)}")
    try:
        working.mkdir(parents=True)
        yield working, final
        if final.exists():
            final.rmdir()
        os.rename(working, final)
    except OSError as error:
        raise DataError(f"{path}: expected to write {what}, found: {error.strerror or error}") from error
    finally:
        shutil.rmtree(working, ignore_errors=True)
