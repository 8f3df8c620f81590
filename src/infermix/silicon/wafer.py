"""Dies on a wafer: two closed forms that papers use, and the exact grid that is the default."""

from __future__ import annotations

import itertools

import numpy as np

from infermix.arrays import Floats

PHASES = 4
"""Grids are tried with a street through the middle of the wafer, a die there, and steps between, along both axes."""


def dies_circle(area_mm2: Floats, diameter_mm: Floats) -> Floats:
    """Dies per wafer less those that the rim cuts (E1; Hennessy and Patterson; LLMCompass, ttm-cas).

    Parameters
    ----------
    area_mm2
        Area of a die [mm2], above 0; negative counts for a die as large as the wafer.
    diameter_mm
        Diameter of the wafer [mm].

    >>> round(float(dies_circle(np.float64(814), np.float64(300))), 1)
    63.5
    """
    return np.pi * (diameter_mm / 2) ** 2 / area_mm2 - np.pi * diameter_mm / np.sqrt(2 * area_mm2)


def dies_circle_scribed(area_mm2: Floats, diameter_mm: Floats, scribe_mm: Floats, edge_mm: Floats) -> Floats:
    """E1 on the wafer within its edge, each die with its street (E2; Chiplet Actuary).

    >>> round(float(dies_circle_scribed(np.float64(814), np.float64(300), np.float64(1) / 5, np.float64(5))), 1)
    57.6
    """
    street = area_mm2 + 2 * scribe_mm * np.sqrt(area_mm2) + scribe_mm**2
    return dies_circle(street, diameter_mm - 2 * edge_mm)


def dies_grid(width_mm: Floats, height_mm: Floats, diameter_mm: Floats, scribe_mm: Floats, edge_mm: Floats) -> Floats:
    """Whole dies of the best rectangular grid on the usable circle (E3; CATCH, reallm).

    Parameters
    ----------
    width_mm, height_mm
        Sides of a die [mm], above 0.
    diameter_mm, scribe_mm, edge_mm
        Wafer, street between dies, and rim that holds no die [mm].

    >>> width, height, rest = np.float64(26), np.float64(814) / 26, (np.float64(300), np.float64(1) / 10, np.float64(3))
    >>> float(dies_grid(width, height, *rest))
    67.0
    """
    width, height, radius = np.broadcast_arrays(width_mm + scribe_mm, height_mm + scribe_mm, diameter_mm / 2 - edge_mm)
    columns = int(np.ceil(2 * np.max(radius / width))) + 1
    best = np.zeros(width.shape)
    for across, along in itertools.product(range(PHASES), repeat=2):
        best = np.maximum(best, _on_grid(width, height, radius, columns, across / PHASES, along / PHASES))
    return best


def _on_grid(width: Floats, height: Floats, radius: Floats, columns: int, across: float, along: float) -> Floats:
    """Whole dies of one grid, whose lines are shifted by these shares of a die."""
    left = (np.arange(columns) - columns // 2 - across) * width[..., None]
    farther = np.maximum(np.abs(left), np.abs(left + width[..., None]))
    reach = np.sqrt(np.maximum(radius[..., None] ** 2 - farther**2, 0)) / height[..., None]
    rows = np.maximum(np.floor(reach - along) + np.floor(reach + along), 0)
    found: Floats = np.where(farther <= radius[..., None], rows, 0).sum(axis=-1)
    return found


def squares_in_rows(area_mm2: float, diameter_mm: float, gap_mm: float) -> int:
    """Squares in free rows on the whole circle, as reallm and ASIC Clouds count dies (E3, kept for their figures).

    Rows may be shifted against each other; the rows nearest to the middle lie either side of it at equal height or
    one of them astride it.
    """
    side, radius = float(np.sqrt(area_mm2)) + gap_mm, diameter_mm / 2

    def rows(start: float) -> int:
        """Squares in rows whose far edges lie at start, start + side, ..."""
        edges = np.arange(start, radius, side)
        return int(np.floor(2 * np.sqrt(radius**2 - edges**2) / side).sum())

    shifts = np.linspace(0, side / 2, 2 * PHASES + 1)
    return max(rows(side / 2 + shift) + rows(3 * side / 2 - shift) for shift in shifts)


def squares_from_rim(area_mm2: float, diameter_mm: float, scribe_mm: float, edge_mm: float) -> int:
    """Squares of the best grid whose first column touches the rim, as CATCH counts dies (E3, kept for its figures).

    The first column has some rows, as many above the middle as below; rows beyond it start where the rim lets them.
    """
    pitch, radius = float(np.sqrt(area_mm2)) + scribe_mm, diameter_mm / 2 - edge_mm

    def half_chord(height: Floats) -> Floats:
        return np.sqrt(np.maximum(radius**2 - height**2, 0))

    def squares(first_rows: int) -> int:
        """Squares of the grid whose first column has so many rows."""
        top = np.asarray((first_rows * pitch - scribe_mm) / 2)
        half = half_chord(top)
        across = np.floor((2 * half + scribe_mm) / pitch)
        low = np.arange(first_rows) * pitch - top
        corner = np.maximum(low**2, (low + pitch) ** 2) + ((across + 1) * pitch - half) ** 2
        beyond = half_chord(np.arange(float(top) + pitch, radius, pitch))
        free = 2 * beyond - (np.ceil((half - beyond) / pitch) * pitch - (half - beyond))
        one_more = np.count_nonzero(corner <= radius**2)
        return int(first_rows * across + one_more + 2 * np.floor(free / pitch).sum())

    most = half_chord(half_chord(np.asarray(pitch / 2)) - pitch)  # taller columns leave room for one before them
    return max(squares(rows) for rows in range(1, int(np.ceil(2 * most / pitch))))


def litho_factor(area_mm2: Floats, field_mm2: Floats, litho_share: Floats) -> Floats:
    """Cost of a wafer where dies fill the scanner's field badly, over that where they fill it (CATCH).

    ``(1 - l) + l/u`` with the used share of the field ``u = floor(field / area) area / field``; 1 for dies over it.

    >>> float(litho_factor(np.float64(429), np.float64(858), np.float64(1) / 4))
    1.0
    """
    used = np.floor(field_mm2 / area_mm2) * area_mm2 / field_mm2
    return np.where(used > 0, (1 - litho_share) + litho_share / np.where(used > 0, used, 1), 1)
