"""The flow through a polygon by another method than the program's: harmonic functions fitted at the wall."""

from __future__ import annotations

import numpy as np


class HarmonicSeries:
    """phi = -r^2 / 4 + Re p(y + i z) + corner functions Im((y + i z - corner)^(k pi / angle)).

    The polynomial p is orthonormalised as it is built (Brubeck, Nakatsukasa & Trefethen, SIAM Rev. 63, 405, 2021).
    Converges for convex sections; the remaining value at the wall, `error` (over the maximum), bounds the error
    everywhere (maximum principle).
    """

    def __init__(self, corners: np.ndarray, degree: int = 40, points: int = 300) -> None:
        after = np.roll(corners, -1, axis=0)
        share = (1.0 - np.cos(np.pi * (np.arange(points) + 0.5) / points)) / 2.0  # dense at the corners
        wall = np.concatenate([a + (b - a) * share[:, None] for a, b in zip(corners, after, strict=True)])
        self.centre = corners.mean(axis=0)
        self.scale = np.ptp(corners, axis=0).max() / 2.0
        self.corners = corners
        z = self._complex(wall)
        basis, self.hessenberg = [np.ones_like(z)], []
        for _ in range(degree):
            column = z * basis[-1]
            factors = []
            for q in basis:
                factor = np.vdot(q, column) / z.size
                column = column - factor * q
                factors.append(factor)
            norm = np.linalg.norm(column) / np.sqrt(z.size)
            basis.append(column / norm)
            self.hessenberg.append((factors, norm))
        q = np.stack(basis, axis=1)
        target = np.abs(z) ** 2 / 4.0
        matrix = np.hstack([q.real, -q.imag[:, 1:], self._corner_functions(z)])
        self.coefficients = np.linalg.lstsq(matrix, target, rcond=None)[0]
        inner = self.phi(self.centre[None])[0]
        self.error = np.abs(self.phi(wall)).max() / inner

    def _complex(self, points: np.ndarray) -> np.ndarray:
        return ((points - self.centre) / self.scale) @ np.array([1.0, 1j])

    def _corner_functions(self, z: np.ndarray) -> np.ndarray:
        """What is singular at each corner and 0 at its two sides, (N, 4 corners)."""
        corners = self._complex(self.corners)
        columns = []
        for before, corner, after in zip(np.roll(corners, 1), corners, np.roll(corners, -1), strict=True):
            angle = np.angle((before - corner) / (after - corner)) % (2 * np.pi)
            turned = (z - corner) / (after - corner)
            argument = np.clip(np.angle(turned * np.exp(-0.5j * angle)) + angle / 2, 0.0, angle)
            for k in range(1, 5):
                power = k * np.pi / angle
                columns.append(np.abs(turned) ** power * np.sin(power * argument))
        return np.stack(columns, axis=1)

    def phi(self, points: np.ndarray) -> np.ndarray:
        """Solution of laplace(phi) = -1 with 0 at the wall, um^2, at points (N, 2) inside."""
        z = self._complex(points)
        basis = [np.ones_like(z)]
        for factors, norm in self.hessenberg:
            column = z * basis[-1]
            for factor, q in zip(factors, basis, strict=True):
                column = column - factor * q
            basis.append(column / norm)
        q = np.stack(basis, axis=1)
        harmonic = np.hstack([q.real, -q.imag[:, 1:], self._corner_functions(z)]) @ self.coefficients
        return (harmonic - np.abs(z) ** 2 / 4.0) * self.scale**2

    def mean_um2(self, cells: int = 400) -> float:
        """Mean of phi, by Gauss's rule over triangles that fan out from the first corner (convex sections)."""
        nodes, weights = np.polynomial.legendre.leggauss(cells // 10)
        u, w = (nodes + 1) / 2, weights / 2
        s, t = np.meshgrid(u, u, indexing="ij")
        weight = np.outer(w, w) * s
        total = area = 0.0
        first = self.corners[0]
        for b, c in zip(self.corners[1:-1], self.corners[2:], strict=True):
            size = abs((b[0] - first[0]) * (c[1] - first[1]) - (b[1] - first[1]) * (c[0] - first[0]))
            points = first + s[..., None] * ((b - first) + t[..., None] * (c - b))
            total += size * float((weight * self.phi(points.reshape(-1, 2)).reshape(s.shape)).sum())
            area += size / 2.0
        return total / area
