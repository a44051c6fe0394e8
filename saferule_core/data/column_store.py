"""Columns of any length in little memory: they grow on disk, and are mapped into memory when they are complete.

    with ColumnFolder() as folder:
        column = folder.column("x", np.dtype("<f8"))
        column.append(np.zeros(1000))
        values = column.finish()                           # (1000,), read-only

Short columns never touch the disk.
"""

from __future__ import annotations

import mmap
import shutil
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Any

import numpy as np

from saferule_core.errors import DataError, DiskError

SPILL_BYTES = 1 << 22
"""A column that is larger than this goes to disk."""


class Column:
    """Values of one kind, appended in pieces (n,) or (n, k); k is set by the first piece."""

    def __init__(self, folder: ColumnFolder, name: str, dtype: np.dtype) -> None:
        self.name, self.dtype = name, dtype
        self.width: int | None = None
        self.length = 0
        self._folder = folder
        self._pieces: list[np.ndarray] = []
        self._bytes = 0
        self._file = None

    def append(self, values: np.ndarray) -> None:
        """Append values.

        Raises:
            DataError: they have another number of values each than the ones before. DiskError: the disk is full.
        """
        width = values.shape[1] if values.ndim == 2 else None
        if self.length == 0:
            self.width = width
        elif width != self.width:
            raise DataError(f"{self.name}: expected {self.width} values in every message, found {width}")
        self._pieces.append(np.ascontiguousarray(values, self.dtype))
        self.length += len(values)
        self._bytes += values.nbytes
        if self._bytes > SPILL_BYTES:
            self._spill()

    def finish(self) -> np.ndarray:
        """Return all values, in memory or mapped."""
        shape = (self.length,) if self.width is None else (self.length, self.width)
        if self._file is None:
            pieces, self._pieces = self._pieces, []
            return np.concatenate(pieces).reshape(shape) if pieces else np.zeros(shape, self.dtype)
        self._spill()
        self._file.close()
        return np.memmap(self._file.name, self.dtype, "r", shape=shape)

    def _spill(self) -> None:
        try:
            if self._file is None:
                self._file = (self._folder.path / f"{self._folder.number()}.bin").open("wb")
            for piece in self._pieces:
                self._file.write(piece.data if piece.size else b"")
        except OSError as error:
            raise DiskError(f"{self._folder.path}: expected space for columns, found: {error}") from error
        self._pieces, self._bytes = [], 0


class ColumnFolder:
    """Where columns grow: a temporary directory that is gone after the `with` block.

    Mapped columns stay readable after that: a file without a name lives as long as it is mapped.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._count = 0

    @property
    def path(self) -> Path:
        """The directory; made when it is first needed."""
        if self._path is None:
            self._path = Path(mkdtemp(prefix="saferule_columns_"))
        return self._path

    def number(self) -> int:
        """Return a new number for a file's name."""
        self._count += 1
        return self._count

    def column(self, name: str, dtype: np.dtype) -> Column:
        """Return a new, empty column."""
        return Column(self, name, dtype)

    def __enter__(self) -> ColumnFolder:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._path is not None:
            shutil.rmtree(self._path, ignore_errors=True)


def release(*columns: Any) -> None:
    """Give back the memory that mapped columns take; they are read from their files again when they are needed."""
    for column in columns:
        mapping = getattr(column, "_mmap", None)
        if mapping is not None and hasattr(mapping, "madvise"):
            mapping.madvise(mmap.MADV_DONTNEED)
