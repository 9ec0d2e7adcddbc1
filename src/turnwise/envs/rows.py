"""Sparse rows: the one form of table that problems are written in.

The tables of large POMDPs are nearly empty (12,545 states, each with a handful of successors), and every
algorithm reads them row by row, so compressed sparse rows (CSR) fit. SciPy has such matrices too, but
environments import NumPy alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rows:
    """A sparse matrix by rows (CSR): row i holds `data[indptr[i]:indptr[i+1]]` at columns `indices[...]`.

    Columns rise within a row. What is not there is 0. The arrays are read-only.
    """

    indptr: np.ndarray
    """[rows + 1]"""
    indices: np.ndarray
    """[entries], columns"""
    data: np.ndarray
    """[entries]"""
    width: int
    """number of columns"""

    def __post_init__(self) -> None:
        for name, kind in (("indptr", np.int64), ("indices", np.int32), ("data", np.float64)):
            array = np.ascontiguousarray(getattr(self, name), kind)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if len(self.indptr) == 0 or self.indptr[-1] != len(self.data) or len(self.indices) != len(self.data):
            raise ValueError(
                f"{len(self.indices)} columns, {len(self.data)} values and row ends at "
                f"{self.indptr[-1:]} do not belong together"
            )

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def row(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Columns and values of one row."""
        here = slice(self.indptr[i], self.indptr[i + 1])
        return self.indices[here], self.data[here]

    def of_entries(self) -> np.ndarray:
        """[entries], the row of each entry."""
        return np.repeat(np.arange(len(self)), np.diff(self.indptr))

    def entries_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All entries of the given rows, one row after another: (position in `rows`, entry), both [total].

        A row that is given twice comes twice. This is how tables are joined: "for each transition, all that
        can be seen after it".
        """
        begin = self.indptr[rows]
        count = self.indptr[rows + 1] - begin
        position = np.repeat(np.arange(len(rows)), count)
        first = np.cumsum(count) - count  # where each row's entries begin in the result
        return position, np.arange(len(position)) - first[position] + begin[position]

    def dense(self) -> np.ndarray:
        """The full matrix [rows, width]."""
        full = np.zeros((len(self), self.width))
        full[self.of_entries(), self.indices] = self.data
        return full

    @staticmethod
    def from_dense(matrix: np.ndarray) -> Rows:
        """The rows of a full matrix [rows, width]; its zeros are left out."""
        matrix = np.asarray(matrix, np.float64)
        row, column = np.nonzero(matrix)
        return Rows.from_entries(row, column, matrix[row, column], matrix.shape)

    @staticmethod
    def from_entries(row: np.ndarray, column: np.ndarray, data: np.ndarray, shape: tuple[int, int]) -> Rows:
        """The rows of a matrix of `shape`, from entries in any order, each place at most once."""
        row, column, data = np.asarray(row), np.asarray(column), np.asarray(data, np.float64)
        order = np.lexsort((column, row))
        indptr = np.zeros(shape[0] + 1, np.int64)
        np.cumsum(np.bincount(row, minlength=shape[0]), out=indptr[1:])
        return Rows(indptr, column[order], data[order], shape[1])
