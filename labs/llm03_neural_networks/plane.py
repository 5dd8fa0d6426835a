"""Six matrices that move the plane, and the area of what they move."""

from torch import Tensor

Matrix = list[list[float]]

SHEAR: Matrix = [[1.0, 1.0], [0.0, 1.0]]
ROTATION: Matrix = [[0.8, -0.6], [0.6, 0.8]]  # by 37°, as cos 37° = 0.8
MOVES: dict[str, Matrix] = {
    "identity": [[1.0, 0.0], [0.0, 1.0]],
    "rotation": ROTATION,
    "shear": SHEAR,
    "stretch": [[1.5, 0.0], [0.0, 0.5]],
    "reflection": [[0.0, 1.0], [1.0, 0.0]],
    "projection": [[0.5, 0.5], [0.5, 0.5]],
}


def area(corners: Tensor) -> Tensor:
    """Return the area of a polygon from its corners, (n, 2), by the shoelace formula."""
    following = corners.roll(-1, 0)
    crosses = corners[:, 0] * following[:, 1] - corners[:, 1] * following[:, 0]
    return crosses.sum().abs() / 2
