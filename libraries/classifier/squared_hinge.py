"""The solver of linear SVMs: squared hinge loss, L2 penalty, a path of C values for many columns at once.

Per column it minimises  |w|^2 / 2 + C * sum_i weight_i * max(0, 1 - target_i * (x_i @ w))^2,  as scikit-learn's
LinearSVC(loss="squared_hinge") does; a bias is a column of ones in x, regularised like the rest. An example of weight
zero is left out: so the folds of a cross-validation are columns too, and all go through the same wide matrix products,
which are several times as fast, per column, as narrow ones.

The objective is piecewise quadratic: Newton's method with an exact line search ends after a few steps, once the
active set (the rows with slack > 0) stands still (Keerthi and DeCoste 2005, 'A modified finite Newton method for fast
solution of large scale linear SVMs', https://jmlr.org/papers/v6/keerthi05a.html). Along ascending C, each solution
starts the next (Chu et al. 2015, 'Warm start for parameter selection of linear classifiers'). The Newton systems of all
columns are solved together by conjugate gradients in float32, preconditioned with the leading eigenvectors of the data
(Frangella et al. 2021, 'Randomized Nyström preconditioning', https://arxiv.org/abs/2110.02820): a few wide matrix
products. Where a column has few active rows, or conjugate gradients crawl (a C so large that the classifier
interpolates), its system is solved directly.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from libraries.base.arrays import Bool, Float32, Floating, Int

TOLERANCE = {
    "float64": 1e-9,
    "float32": 1e-2,
}  # of |gradient| / |gradient of the loss|; LIBLINEAR stops at 1e-2 to 1e-4
LINE_TOLERANCE = {"float64": 1e-12, "float32": 1e-2}  # of the length of a step
MAXIMUM_STEPS = 100  # a guard; Newton takes 1 to 8 per C
CG_TOLERANCE = (1e-1, 1e-5)  # residual at the first steps and at the last; float32 gives no less
CG_ITERATIONS = 150  # about as much work as a direct solution
# With less than sqrt((a + b / columns) * rows) active rows, a direct solution is quicker than some iterations: per
# column, these take longer where columns are few.
FEW_ACTIVE = (20, 600)  # a and b
RANK = 128  # eigenvectors in the preconditioner
SPREAD = 1e-5  # of the eigenvalues; with more the preconditioner would lose its sign to float32's rounding
COLUMNS_AT_ONCE = 128
FEW_COLUMNS = 6  # a product of matrices takes as long as six products with a vector
ROWS_AT_ONCE = 8192  # bounds the temporary memory where float32 rows are multiplied in float64


def solve_path(x: Floating, targets: Floating, weights: Floating, c_values: Sequence[float]) -> Iterator[Floating]:
    """Solutions for ascending C values.

    Args:
        x: [N, D].
        targets: [N, K], +1 or -1.
        weights: [N, K], >= 0: of each example in each column. Their type is that of the solution: float64: the gradient
            vanishes to 1e-9 of the loss's; float32: to 1e-2, which changes accuracies by a few hundredths of a point.
        c_values: ascending.

    Yields:
        [D, K] per C.
    """
    rows = Rows(x)
    parts = [slice(start, start + COLUMNS_AT_ONCE) for start in range(0, targets.shape[1], COLUMNS_AT_ONCE)]
    blocks = [ColumnBlock(rows, targets[:, part], weights[:, part]) for part in parts]
    for c in c_values:
        for block in blocks:
            block.minimise(c)
        yield np.hstack([block.solution for block in blocks])


def objective(x: Floating, targets: Floating, weights: Floating, c: float, solution: Floating) -> Floating:
    """The minimised quantity per column, [K]."""
    slack = np.maximum(0, 1 - targets * (x @ solution))
    result: Floating = 0.5 * (solution**2).sum(axis=0) + c * (weights * slack**2).sum(axis=0)
    return result


class Rows:
    """The examples [N, D], with the leading eigenvectors of x'x / N, which precondition every column, C and step."""

    def __init__(self, x: Floating) -> None:
        self.x = x
        self.x32: Float32 = x.astype(np.float32, copy=False)
        rank = min(RANK, *x.shape)
        sketch = np.random.default_rng(0).standard_normal((x.shape[1], rank), np.float32)
        for _ in range(2):  # subspace iteration
            sketch = np.linalg.qr(self.x32.T @ (self.x32 @ sketch))[0]
        projected = self.x32 @ sketch
        eigenvalues, rotation = np.linalg.eigh(projected.T @ projected / len(x))
        self._values = np.maximum(eigenvalues, SPREAD * eigenvalues[-1])[:, None]  # [rank, 1], ascending
        self._vectors = sketch @ rotation  # [D, rank]

    def precondition(self, residual: Floating, strength: Floating) -> Floating:
        """(I + strength * x'x / N)^-1 residual, approximately, for residuals [D, K] and strengths [K]."""
        rest = 1 / (1 + strength * self._values[0])  # the least of them stands for all the others
        leading = 1 / (1 + strength * self._values)
        result: Floating = rest * residual + self._vectors @ ((leading - rest) * (self._vectors.T @ residual))
        return result

    def times(self, solution: Floating) -> Floating:
        """x @ solution, [N, K], in the precision of the solution."""
        x = self.x32 if solution.dtype == np.float32 else self.x
        result = np.empty((len(x), solution.shape[1]), solution.dtype)
        for chunk in _chunks(x, solution.dtype):
            rows = x[chunk].astype(solution.dtype, copy=False)
            for columns in _narrow(solution.shape[1]):
                result[chunk, columns] = rows @ solution[:, columns]
        return result

    def transposed_times(self, values: Floating) -> Floating:
        """x.T @ values, [D, K], in the precision of the values [N, K]."""
        x = self.x32 if values.dtype == np.float32 else self.x
        result = np.zeros((x.shape[1], values.shape[1]), values.dtype)
        for chunk in _chunks(x, values.dtype):
            rows = x[chunk].astype(values.dtype, copy=False)
            for columns in _narrow(values.shape[1]):
                result[:, columns] += (values[chunk, columns].T @ rows).T  # thrice as fast as x.T @ values
        return result


def _narrow(columns: int) -> Sequence[slice | int]:
    """A few columns one by one, more of them together: whichever takes less time."""
    return range(columns) if columns <= FEW_COLUMNS else [slice(None)]


def _chunks(x: Floating, dtype: np.dtype[np.floating]) -> list[slice]:
    """All rows at once, or, where these have to be converted, a bounded number."""
    size = len(x) if x.dtype == dtype else ROWS_AT_ONCE
    return [slice(start, start + size) for start in range(0, len(x), size)]


class ColumnBlock:
    """Some columns on their way along the path, in step with each other.

    Args:
        targets, weights: [N, K], see `solve_path`.
        start: [D, K], where the way begins; by default at zero.
        moved: shift and scale, [D, K] each, of columns whose examples are (x - shift) / scale instead of x.

    Attributes:
        solution: [D, K].
    """

    def __init__(
        self,
        rows: Rows,
        targets: Floating,
        weights: Floating,
        *,
        start: Floating | None = None,
        moved: tuple[Floating, Floating] | None = None,
    ) -> None:
        self._rows, self._moved = rows, moved
        self._targets, self._weights = targets, weights
        self._everything = np.arange(targets.shape[1])
        self._is_hard = np.zeros(targets.shape[1], bool)  # conjugate gradients crawl; and at larger C even more so
        if start is None:
            self.solution = np.zeros((rows.x.shape[1], targets.shape[1]), weights.dtype)
            self._margins = np.zeros(targets.shape, weights.dtype)
        else:
            self.solution = start.copy()
            self._margins = targets * self._times(start, self._everything)
        self._pull = self._pull_of(self._everything)

    @property
    def scores(self) -> Floating:
        """x @ solution, [N, K]."""
        return self._targets * self._margins

    def minimise(self, c: float) -> None:
        """Newton steps, for each column until it converges."""
        tolerance = TOLERANCE[self.solution.dtype.name]
        todo = self._everything
        for _ in range(MAXIMUM_STEPS):
            loss_gradient = 2 * c * self._pull[:, todo]
            gradient = self.solution[:, todo] - loss_gradient
            relative = np.linalg.norm(gradient, axis=0) / (np.linalg.norm(loss_gradient, axis=0) + 1e-30)
            is_open = relative > tolerance
            if not is_open.any():
                return
            todo, gradient, relative = todo[is_open], gradient[:, is_open], relative[is_open]
            slack = np.maximum(0, 1 - self._margins[:, todo])
            curvature = 2 * c * self._weights[:, todo] * (slack > 0)
            accuracy = np.clip(np.maximum(relative, tolerance / relative), CG_TOLERANCE[1], CG_TOLERANCE[0])
            direction = self._newton_direction(todo, curvature, -gradient, accuracy)
            loss = (self.solution[:, todo] ** 2).sum(axis=0) + (curvature * slack**2).sum(axis=0)
            self._step(c, todo, direction)
            self._pull[:, todo] = self._pull_of(todo)
            # Where a step gains less than the precision of the objective itself, no further step will.
            gain = -(gradient * direction).sum(axis=0)
            todo = todo[gain > np.finfo(self.solution.dtype).eps * loss]

    def _times(self, solution: Floating, columns: Int) -> Floating:
        """Each column's examples times its solution, [N, K] for solutions [D, K]."""
        if self._moved is None:
            return self._rows.times(solution)
        shift, scale = (array[:, columns] for array in self._moved)
        scaled = np.asarray(solution / scale, solution.dtype)
        return np.asarray(self._rows.times(scaled) - (shift * scaled).sum(axis=0), solution.dtype)

    def _transposed_times(self, values: Floating, columns: Int) -> Floating:
        product = self._rows.transposed_times(values)
        if self._moved is None:
            return product
        shift, scale = (array[:, columns] for array in self._moved)
        return np.asarray((product - shift * values.sum(axis=0)) / scale, values.dtype)

    def _pull_of(self, columns: Int) -> Floating:
        """What the loss pulls the solution towards, [D, K]: its gradient divided by -2 C."""
        slack = np.maximum(0, 1 - self._margins[:, columns])
        return self._transposed_times(self._weights[:, columns] * self._targets[:, columns] * slack, columns)

    def _newton_direction(self, todo: Int, curvature: Floating, right: Floating, accuracy: Floating) -> Floating:
        """(I + x' diag(curvature) x)^-1 right, for each column, [D, K]."""
        direction = np.empty_like(right)
        active = np.count_nonzero(curvature, axis=0)
        few = (FEW_ACTIVE[0] + FEW_ACTIVE[1] / len(todo)) * len(curvature)
        is_direct = self._is_hard[todo] | (active**2 < few)
        others = np.flatnonzero(~is_direct)
        if others.size:
            direction[:, others], converged = self._conjugate_gradients(
                todo[others], curvature[:, others], right[:, others], accuracy[others]
            )
            is_direct[others[~converged]] = self._is_hard[todo[others[~converged]]] = True
        for i in np.flatnonzero(is_direct):
            direction[:, i] = self._solve_directly(todo[i], curvature[:, i], right[:, i])
        return direction

    def _conjugate_gradients(
        self, columns: Int, curvature: Floating, right: Floating, accuracy: Floating
    ) -> tuple[Floating, Bool]:
        curvature = curvature.astype(np.float32, copy=False)

        def product(search: Float32, which: Int) -> Floating:
            along = curvature[:, which] * self._times(search, columns[which])
            return search + self._transposed_times(along, columns[which])

        return _conjugate_gradients(product, self._rows.precondition, curvature.sum(axis=0), right, accuracy)

    def _solve_directly(self, column: int, curvature: Floating, right: Floating) -> Floating:
        """The same for one column; in the dual (matrix inversion lemma) where that is smaller."""
        active = curvature > 0
        rows = self._rows.x[active].astype(right.dtype, copy=False)
        if self._moved is not None:
            shift, scale = (array[:, column] for array in self._moved)
            rows = ((rows - shift) / scale).astype(right.dtype)
        rows = rows * np.sqrt(curvature[active])[:, None]
        if len(rows) >= rows.shape[1]:
            system = rows.T @ rows
            system.flat[:: len(system) + 1] += 1
            return np.asarray(np.linalg.solve(system, right))
        system = rows @ rows.T
        system.flat[:: len(system) + 1] += 1
        return right - rows.T @ np.linalg.solve(system, rows @ right)

    def _step(self, c: float, todo: Int, direction: Floating) -> None:
        change = self._targets[:, todo] * self._times(direction, todo)
        along, across = ((vector * direction).sum(axis=0) for vector in (self.solution[:, todo], direction))
        length = _line_search(c * self._weights[:, todo], self._margins[:, todo], change, along, across)
        self.solution[:, todo] += length * direction
        self._margins[:, todo] += length * change


def _conjugate_gradients(
    product: Callable[[Float32, Int], Floating],
    precondition: Callable[[Floating, Floating], Floating],
    strength: Floating,
    right: Floating,
    accuracy: Floating,
) -> tuple[Floating, Bool]:
    """Solve product(direction) = right for all columns at once, in float32.

    Args:
        product: of vectors [D, k] for k of the columns.
        precondition: see `Rows`.
        strength: [K].
        right: [D, K].
        accuracy: [K], of the residual in the preconditioner's norm.

    Returns:
        The directions [D, K], and which of them got there within CG_ITERATIONS; the others are zero.
    """
    scale = np.linalg.norm(right, axis=0)
    result = np.zeros(right.shape, np.float32)
    open_columns = np.arange(right.shape[1])
    residual = (right / scale).astype(np.float32)
    direction = np.zeros_like(residual)
    search = preconditioned = precondition(residual, strength)
    size = (residual * preconditioned).sum(axis=0)
    enough = (accuracy**2 * size).astype(np.float32)
    for _ in range(CG_ITERATIONS):
        image = product(search, open_columns)
        length = size / (search * image).sum(axis=0)
        direction = direction + length * search
        residual = residual - length * image
        preconditioned = precondition(residual, strength)
        new_size = (residual * preconditioned).sum(axis=0)
        search = preconditioned + new_size / size * search
        size = new_size
        is_open = size > enough
        if not is_open.all():
            result[:, open_columns[~is_open]] = direction[:, ~is_open]
            open_columns, strength, size, enough = (a[is_open] for a in (open_columns, strength, size, enough))
            residual, direction, search = (a[:, is_open] for a in (residual, direction, search))
        if not open_columns.size:
            break
    return result * scale, np.isin(np.arange(right.shape[1]), open_columns, invert=True)


def _line_search(cost: Floating, margin: Floating, change: Floating, along: Floating, across: Floating) -> Floating:
    """Lengths [K] of the steps to the minimum along directions: Newton's method on convex functions of one variable.

    A derivative is piecewise linear and increasing; an interval around its zero guards against cycling.

    Args:
        cost, margin, change: [N, K]; the margins are margin + length * change.
        along, across: [K], products of the direction with the solution and with itself.
    """
    enough = LINE_TOLERANCE[margin.dtype.name]
    low, high, length = np.zeros_like(along), np.full_like(along, np.inf), np.ones_like(along)
    is_open = np.ones(len(along), bool)
    pull = cost * change
    for _ in range(50):
        slack = np.maximum(0, 1 - margin - length * change)
        slope = along + length * across - 2 * np.einsum("nk,nk->k", pull, slack)
        curvature = across + 2 * np.einsum("nk,nk->k", pull, change * (slack > 0))
        low, high = np.where(slope > 0, low, length), np.where(slope > 0, length, high)
        proposal = length - slope / curvature
        is_open &= (low < proposal) & (proposal < high)
        is_near = np.abs(proposal - length) <= enough * length
        length = np.where(is_open, proposal, length)
        is_open &= ~is_near
        if not is_open.any():
            break
    return length
