"""The solver of linear SVMs: squared hinge loss, L2 penalty, a path of C values for many columns at once.

Per column it minimises  |w|^2 / 2 + C * sum_i weight_i * max(0, 1 - target_i * (x_i @ w))^2,  as scikit-learn's
LinearSVC(loss="squared_hinge") does; a bias is a column of ones in x, regularised like the rest.

The objective is piecewise quadratic: Newton's method with an exact line search ends after a few steps, once the
active set (the rows with slack > 0) stands still (Keerthi and DeCoste 2005, 'A modified finite Newton method for fast
solution of large scale linear SVMs', https://jmlr.org/papers/v6/keerthi05a.html). Along ascending C, each solution
starts the next (Chu et al. 2015, 'Warm start for parameter selection of linear classifiers'). The Newton systems of all
columns are solved together by conjugate gradients in float32, preconditioned with the leading eigenvectors of the data
(Frangella et al. 2021, 'Randomized Nyström preconditioning', https://arxiv.org/abs/2110.02820): a few wide matrix
products. Where that crawls (a C so large that the classifier interpolates), a column's system is solved directly.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from libraries.base.arrays import Bool, Floating, Int

TOLERANCE = {
    "float64": 1e-9,
    "float32": 1e-5,
}  # of |gradient| / |gradient of the loss|; LIBLINEAR stops at 1e-2 to 1e-4
MAXIMUM_STEPS = 100  # a guard; Newton takes 3 to 8 per C
CG_TOLERANCE = (1e-2, 1e-5)  # residual at the first steps and at the last; float32 gives no less
CG_ITERATIONS = 150  # about as much work as a direct solution
RANK = 128  # eigenvectors in the preconditioner
SPREAD = 1e-5  # of the eigenvalues; with more the preconditioner would lose its sign to float32's rounding
COLUMNS_AT_ONCE = 64


def solve_path(x: Floating, targets: Floating, weights: Floating, c_values: Sequence[float]) -> Iterator[Floating]:
    """Solutions for ascending C values.

    Args:
        x: [N, D]. float64: the gradient vanishes to 1e-9 of the loss's. float32: to 1e-5, in half the memory.
        targets: [N, K], +1 or -1.
        weights: [N, K], > 0: of each example in each column.
        c_values: ascending.

    Yields:
        [D, K] per C, of x's type.
    """
    spectrum = _Spectrum(x.astype(np.float32, copy=False))
    blocks = [slice(start, start + COLUMNS_AT_ONCE) for start in range(0, targets.shape[1], COLUMNS_AT_ONCE)]
    paths = [_Block(x, targets[:, block], weights[:, block], spectrum).path(c_values) for block in blocks]
    for solutions in zip(*paths, strict=True):
        yield np.hstack(solutions)


def objective(x: Floating, targets: Floating, weights: Floating, c: float, solution: Floating) -> Floating:
    """The minimised quantity per column, [K]."""
    slack = np.maximum(0, 1 - targets * (x @ solution))
    result: Floating = 0.5 * (solution**2).sum(axis=0) + c * (weights * slack**2).sum(axis=0)
    return result


class _Spectrum:
    """The leading eigenvectors of x'x / N, which make the preconditioner of every column, C and step."""

    def __init__(self, x32: Floating) -> None:
        rank = min(RANK, *x32.shape)
        sketch = np.random.default_rng(0).standard_normal((x32.shape[1], rank), np.float32)
        for _ in range(2):  # subspace iteration
            sketch = np.linalg.qr(x32.T @ (x32 @ sketch))[0]
        projected = x32 @ sketch
        eigenvalues, rotation = np.linalg.eigh(projected.T @ projected / len(x32))
        self.x32 = x32
        self.values = np.maximum(eigenvalues, SPREAD * eigenvalues[-1])[:, None]  # [rank, 1], ascending
        self.vectors = sketch @ rotation  # [D, rank]

    def precondition(self, residual: Floating, strength: Floating) -> Floating:
        """(I + strength * x'x / N)^-1 residual, approximately, for residuals [D, K] and strengths [K]."""
        rest = 1 / (1 + strength * self.values[0])  # the least of them stands for all the others
        leading = 1 / (1 + strength * self.values)
        result: Floating = rest * residual + self.vectors @ ((leading - rest) * (self.vectors.T @ residual))
        return result


class _Block:
    """Some columns on their way along the path, in step with each other."""

    def __init__(self, x: Floating, targets: Floating, weights: Floating, spectrum: _Spectrum) -> None:
        self.x, self.targets, self.weights, self.spectrum = x, targets, weights, spectrum
        self.solution = np.zeros((x.shape[1], targets.shape[1]), x.dtype)
        self.margins = np.zeros(targets.shape, x.dtype)
        self.is_hard = np.zeros(targets.shape[1], bool)  # conjugate gradients crawl; and at larger C even more so

    def path(self, c_values: Sequence[float]) -> Iterator[Floating]:
        for c in c_values:
            self._minimise(c)
            yield self.solution.copy()

    def _minimise(self, c: float) -> None:
        """Newton steps, for each column until it converges."""
        tolerance = TOLERANCE[self.x.dtype.name]
        todo = np.arange(self.targets.shape[1])
        for _ in range(MAXIMUM_STEPS):
            slack = np.maximum(0, 1 - self.margins[:, todo])
            loss_gradient = 2 * c * (self.x.T @ (self.weights[:, todo] * self.targets[:, todo] * slack))
            gradient = self.solution[:, todo] - loss_gradient
            relative = np.linalg.norm(gradient, axis=0) / (np.linalg.norm(loss_gradient, axis=0) + 1e-300)
            is_open = relative > tolerance
            if not is_open.any():
                return
            todo, slack, gradient = todo[is_open], slack[:, is_open], gradient[:, is_open]
            curvature = 2 * c * self.weights[:, todo] * (slack > 0)
            direction = self._newton_direction(todo, curvature, -gradient, relative[is_open])
            self._step(c, todo, direction)
            # Where a step gains less than the precision of the objective itself, no further step will.
            gain = -(gradient * direction).sum(axis=0)
            loss = (self.solution[:, todo] ** 2).sum(axis=0) + (curvature * slack**2).sum(axis=0)
            todo = todo[gain > np.finfo(self.x.dtype).eps * loss]

    def _newton_direction(self, todo: Int, curvature: Floating, right: Floating, relative: Floating) -> Floating:
        """(I + x' diag(curvature) x)^-1 right, for each column, [D, K]."""
        direction = np.empty_like(right)
        easy = np.flatnonzero(~self.is_hard[todo])
        if easy.size:
            accuracy = np.clip(relative[easy], CG_TOLERANCE[1], CG_TOLERANCE[0])
            direction[:, easy], converged = _conjugate_gradients(
                self.spectrum, curvature[:, easy], right[:, easy], accuracy
            )
            self.is_hard[todo[easy[~converged]]] = True
        for i in np.flatnonzero(self.is_hard[todo]):
            direction[:, i] = _solve_directly(self.x, curvature[:, i], right[:, i])
        return direction

    def _step(self, c: float, todo: Int, direction: Floating) -> None:
        change = self.targets[:, todo] * (self.x @ direction)
        for i, k in enumerate(todo):
            length = _line_search(
                c * self.weights[:, k], self.margins[:, k], change[:, i], self.solution[:, k], direction[:, i]
            )
            self.solution[:, k] += length * direction[:, i]
            self.margins[:, k] += length * change[:, i]


def _conjugate_gradients(
    spectrum: _Spectrum, curvature: Floating, right: Floating, accuracy: Floating
) -> tuple[Floating, Bool]:
    """Solve (I + x' diag(curvature) x) direction = right for all columns at once, in float32.

    Args:
        curvature: [N, K].
        right: [D, K].
        accuracy: [K], of the residual in the preconditioner's norm.

    Returns:
        The directions [D, K], and which of them got there within CG_ITERATIONS; the others are zero.
    """
    scale = np.linalg.norm(right, axis=0)
    result = np.zeros(right.shape, np.float32)
    open_columns = np.arange(right.shape[1])
    curvature = curvature.astype(np.float32)
    strength = curvature.sum(axis=0)
    residual = (right / scale).astype(np.float32)
    direction = np.zeros_like(residual)
    search = preconditioned = spectrum.precondition(residual, strength)
    size = (residual * preconditioned).sum(axis=0)
    enough = accuracy**2 * size
    for _ in range(CG_ITERATIONS):
        product = search + spectrum.x32.T @ (curvature * (spectrum.x32 @ search))
        length = size / (search * product).sum(axis=0)
        direction = direction + length * search
        residual = residual - length * product
        preconditioned = spectrum.precondition(residual, strength)
        new_size = (residual * preconditioned).sum(axis=0)
        search = preconditioned + new_size / size * search
        size = new_size
        is_open = size > enough
        if not is_open.all():
            result[:, open_columns[~is_open]] = direction[:, ~is_open]
            open_columns, strength, size, enough = (a[is_open] for a in (open_columns, strength, size, enough))
            curvature, residual, direction, search = (a[:, is_open] for a in (curvature, residual, direction, search))
        if not open_columns.size:
            break
    return result * scale, np.isin(np.arange(right.shape[1]), open_columns, invert=True)


def _solve_directly(x: Floating, curvature: Floating, right: Floating) -> Floating:
    """The same for one column, in float64; in the dual (matrix inversion lemma) where that is smaller."""
    active = curvature > 0
    rows = x[active].astype(np.float64) * np.sqrt(curvature[active])[:, None]
    if len(rows) >= x.shape[1]:
        system = rows.T @ rows
        system.flat[:: len(system) + 1] += 1
        return np.asarray(np.linalg.solve(system, right))
    system = rows @ rows.T
    system.flat[:: len(system) + 1] += 1
    return right - rows.T @ np.linalg.solve(system, rows @ right)


def _line_search(cost: Floating, margin: Floating, change: Floating, solution: Floating, direction: Floating) -> float:
    """The length of the step to the minimum along a direction: Newton's method on a convex function of one variable.

    Its derivative is piecewise linear and increasing; an interval around its zero guards against cycling.
    """
    along, across = float(solution @ direction), float(direction @ direction)
    low, high, length = 0.0, np.inf, 1.0
    for _ in range(50):
        slack = np.maximum(0, 1 - margin - length * change)
        slope = along + length * across - 2 * float((cost * change) @ slack)
        curvature = across + 2 * float(cost @ (change * (slack > 0)) ** 2)
        low, high = (low, length) if slope > 0 else (length, high)
        proposal = length - slope / curvature
        if abs(proposal - length) <= 1e-12 * length or not low < proposal < high:
            break
        length = proposal
    return length
