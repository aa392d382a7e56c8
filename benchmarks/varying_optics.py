"""Images of a particle through optics that vary over the field, and their Cramer-Rao bound: a test instrument.

It shares no assumption with `engines.refine.field`: no mean image, no modes, no polynomial weights. Each image
comes from a pupil. At the place (u, v) of the field, px from the middle over half its longer side, and with
r = |(u, v)| / |corner|, a particle at height z above the focus is imaged with

    defocus      z' = z + S(u, v), a tilted and curved focal surface                  `Field.surface_um`
    place        (1 + walk z') (x, y) from the middle                                 `Field.seen`
    astigmatism  its axes turned by `turn_deg` u v, so that they mirror as the lens does
    coma         (3 rho^3 - 2 rho) cos(angle to the radius), growing with r
    smear        a radial blur of `smear_px` r^2 (standard deviation)

and a Mie sphere of its own diameter (Hopkins 1953 for bright field, as in `acquisition.physics.optics`, whose
amplitudes and geometry are used; the incoherent image of a sphere for fluorescence). Images are computed on nodes:
5 x 4 places of a quarter of the field (the others are mirror images), 4 diameters and all depths, then interpolated
by polynomials in u, v and diameter and by a cubic spline in depth. `table` keeps them on disk.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import platformdirs
from numba import njit
from scipy import fft, ndimage

from acquisition.physics.mie import scattering_amplitudes
from acquisition.physics.optics import BRIGHT_PEAK_CONTRAST, OpticsModel
from acquisition.physics.rendering import BACKGROUND_OF_FULL_SCALE

FloatArray = npt.NDArray[np.float64]

VERSION = 2
SIZES = 1 + 0.15 * np.cos(np.pi * (np.arange(4) + 0.5) / 4)
"""Diameters over the mean one that have images: Chebyshev nodes of the +-15 % asked for."""
U_NODES, V_NODES = np.linspace(0, 1, 5), np.linspace(0, 1, 4)
DEPTH_STEP_UM = 6.0
DIRECTIONS = 4
EDGE_PX = 8
GREY_LEVELS = 255


@dataclass(frozen=True)
class Field:
    """What varies. Depth terms are parts of `depth_range_um` over the field; all 0 is a space-invariant lens.

    `tilt` counts from edge to edge of the longer side, `curvature` from the middle to the corners, `walk` is the
    lateral shift at the edge of the longer side over depth.
    """

    shape: tuple[int, int] = (768, 1024)
    depth_range_um: float = 408.0
    tilt: float = 0.04
    tilt_towards_deg: float = 25.0
    curvature: float = 0.06
    walk: float = 0.016
    smear_px: float = 1.5
    coma_px: float = 0.75
    turn_deg: float = 5.0

    @property
    def half_px(self) -> float:
        return max(self.shape) / 2

    @property
    def corner(self) -> tuple[float, float]:
        """u, v of the corner."""
        return self.shape[1] / 2 / self.half_px, self.shape[0] / 2 / self.half_px

    @property
    def middle_px(self) -> tuple[float, float]:
        """x, y of the middle of the field, from the centre of the first pixel."""
        return (self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2

    def still(self) -> Field:
        """The same field without anything that varies."""
        return Field(self.shape, self.depth_range_um, 0, 0, 0, 0, 0, 0, 0)

    def place(self, x_px: Any, y_px: Any) -> tuple[Any, Any]:
        """u, v of places in px."""
        x, y = self.middle_px
        return (np.asarray(x_px, float) - x) / self.half_px, (np.asarray(y_px, float) - y) / self.half_px

    def surface_um(self, x_px: Any, y_px: Any) -> FloatArray:
        """S, um."""
        u, v = self.place(x_px, y_px)
        turn = math.radians(self.tilt_towards_deg)
        tilt = self.tilt / 2 * (u * math.cos(turn) + v * math.sin(turn))
        bowl = self.curvature * (u**2 + v**2) / sum(c**2 for c in self.corner)
        return np.asarray(self.depth_range_um * (tilt + bowl), float)

    def seen(
        self, x_px: Any, y_px: Any, z_um: Any, pixel_um: float
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Where the image of a particle is, px, and its local depth z', um."""
        local = np.asarray(z_um, float) + self.surface_um(x_px, y_px)
        x, y = self.middle_px
        stretch = 1 + self.walk * local / (self.half_px * pixel_um)
        return x + (np.asarray(x_px) - x) * stretch, y + (np.asarray(y_px) - y) * stretch, local


class Drawn(NamedTuple):
    """Particles (N,) as they are in the sample: px, um, diameter over the mean one, brightness."""

    x_px: FloatArray
    y_px: FloatArray
    z_um: FloatArray
    size: FloatArray
    brightness: FloatArray


def at_place(
    optics: OpticsModel, of: Field, u: float, v: float, z_um: FloatArray, sizes: FloatArray, points: int = 0
) -> npt.NDArray[np.float32]:
    """Contrast (S, Z, P, P) at one place of the field, one pixel a step, centred: what is interpolated elsewhere.

    Positive where a bright particle is bright or a dark one dark. `points` is P, by default that of `points_of`.
    """
    points = points or points_of(optics)
    radius = math.hypot(u, v) / math.hypot(*of.corner)
    towards = (u, v) / np.float64(math.hypot(u, v) or 1.0)
    total = np.zeros((sizes.size, z_um.size, points, points), np.float32)
    for wavelength in optics.wavelengths_um:
        pupil = _Pupil(optics, of, wavelength, points, (u, v), radius, towards)
        total += pupil.images(z_um, sizes) / np.float32(len(optics.wavelengths_um))
    if optics.polarity == "bright":
        total *= np.float32(_bright_gain(optics))
    return fft.fftshift(total, axes=(2, 3)) * window(points)


@functools.cache
def _bright_gain(optics: OpticsModel) -> float:
    """What gives the mean sphere the contrast of `OpticsModel` in its sharp focal line, without aberrations."""
    still = Field().still()
    pupil = _Pupil(optics, still, optics.wavelengths_um[0], points_of(optics), (0, 0), 0.0, np.zeros(2))
    line = pupil.images(np.array([-optics.focal_line_separation_um / 2]), np.ones(1))
    return BRIGHT_PEAK_CONTRAST / float(line.max())


def points_of(optics: OpticsModel) -> int:
    """Side of an image, px, odd: the largest one and its soft edge."""
    return 2 * (optics.half_size_px + 2) + 1


def window(points: int) -> npt.NDArray[np.float32]:
    """Lets images end smoothly at their edge."""
    distance = np.abs(np.arange(points) - points // 2) - (points // 2 - EDGE_PX)
    side = 0.5 + 0.5 * np.cos(np.pi * np.clip(distance / EDGE_PX, 0, 1))
    return np.outer(side, side).astype(np.float32)


class _Pupil:
    """The pupil of one wavelength at one place, and the images through it."""

    def __init__(
        self,
        optics: OpticsModel,
        of: Field,
        wavelength_um: float,
        points: int,
        place: tuple[float, float],
        radius: float,
        towards: npt.NDArray[Any],
    ) -> None:
        self.optics, self.vacuum = optics, 2 * np.pi / wavelength_um
        self.points, self.factor = points, optics.oversampling
        self.fine = points * self.factor
        self.step_um = optics.pixel_size_um / self.factor
        frequency = 2 * np.pi * fft.fftfreq(self.fine, self.step_um)
        kx, ky = np.meshgrid(frequency, frequency)
        self.kx, self.ky, self.radius = kx, ky, np.hypot(kx, ky)
        self.wavenumber = self.vacuum * optics.medium_index
        edge = optics.numerical_aperture * self.vacuum
        turn = math.radians(
            optics.rotation_deg + of.turn_deg * place[0] * place[1] / (of.corner[0] * of.corner[1])
        )
        along, across = kx * math.cos(turn) + ky * math.sin(turn), ky * math.cos(turn) - kx * math.sin(turn)
        # coma: transverse aberration dW/dk of coma_px at the edge of the pupil along the radius, tilt removed
        rho = self.radius / edge
        amplitude = of.coma_px * radius * optics.pixel_size_um * edge / 7
        coma = amplitude * (3 * rho**2 - 2) * (kx * towards[0] + ky * towards[1]) / edge
        self.fixed = np.where(self.radius <= edge, np.exp(-1j * coma), 0).astype(np.complex64)
        half = optics.focal_line_separation_um / 2
        self.defocus = (self.radius**2 / (2 * self.wavenumber)).astype(np.float32)
        self.split = (half * (across**2 - along**2) / (2 * self.wavenumber)).astype(np.float32)
        cycles = fft.rfftfreq(self.fine, 1 / self.factor), fft.fftfreq(self.fine, 1 / self.factor)[:, None]
        blur = math.pi * of.smear_px * radius**2 * (cycles[0] * towards[0] + cycles[1] * towards[1])
        self.camera = (np.sinc(cycles[0]) * np.sinc(cycles[1]) * np.exp(-2 * blur**2)).astype(np.float32)

    def images(self, z_um: FloatArray, sizes: FloatArray) -> npt.NDArray[np.float32]:
        """Contrast (S, Z, P, P), averaged over pixels, with the particle at the first pixel."""
        draw = self._dark if self.optics.polarity == "dark" else self._bright
        out = np.empty((sizes.size, z_um.size, self.points, self.points), np.float32)
        spheres = [self._sphere(float(size)) for size in sizes]
        for index, z in enumerate(z_um):
            pupil = self.fixed * np.exp(np.complex64(-1j) * (self.defocus * np.float32(z) + self.split))
            for row, image in enumerate(draw(pupil, spheres)):
                seen = fft.irfft2(fft.rfft2(image) * self.camera, s=image.shape)
                out[row, index] = seen[:: self.factor, :: self.factor]
        return out

    def _sphere(self, size: float) -> list[npt.NDArray[Any]]:
        diameter_um = self.optics.particle_diameter_um * size
        if self.optics.polarity == "bright":
            argument = np.maximum(self.radius * diameter_um / 2, 1e-3)
            # light grows with the volume of the sphere
            sphere = size**3 * 3 * (np.sin(argument) - argument * np.cos(argument)) / argument**3
            return [sphere.astype(np.float32)]
        angle = np.linspace(0, math.pi, 2001)
        s1, s2 = scattering_amplitudes(
            diameter_um * self.wavenumber / 2, self.optics.particle_index / self.optics.medium_index, angle
        )
        cell = (2 * np.pi / (self.fine * self.step_um)) ** 2
        scale = -(cell * self.fine**2) / (2 * np.pi * self.wavenumber**2)
        source = self.optics.condenser_na * self.vacuum / math.sqrt(2)
        turns = (np.arange(DIRECTIONS) + 0.5) * 2 * np.pi / DIRECTIONS
        away = [self.radius] + [
            np.hypot(self.kx - source * math.cos(a), self.ky - source * math.sin(a)) for a in turns
        ]
        theta = [2 * np.arcsin(np.clip(k / (2 * self.wavenumber), 0, 1)) for k in away]
        return [(scale * np.interp(t, angle, (s1 + s2) / 2)).astype(np.complex64) for t in theta]

    def _dark(self, pupil: npt.NDArray[Any], spheres: list[list[npt.NDArray[Any]]]) -> list[npt.NDArray[Any]]:
        source = self.radius <= self.optics.condenser_na * self.vacuum
        transfer = fft.fft2(fft.ifft2(pupil) * np.conj(fft.ifft2(pupil * source)))
        transfer *= np.float32(self.fine**2 / source.sum())
        out = []
        for linear, *oblique in spheres:
            image = -2 * fft.ifft2(linear * transfer).real
            for wave in oblique:
                seen = fft.ifft2(wave * pupil)
                image -= (seen.real**2 + seen.imag**2) / np.float32(DIRECTIONS)
            out.append(image)
        return out

    def _bright(
        self, pupil: npt.NDArray[Any], spheres: list[list[npt.NDArray[Any]]]
    ) -> list[npt.NDArray[Any]]:
        seen = fft.ifft2(pupil)
        spectrum = fft.fft2(seen.real**2 + seen.imag**2) * np.float32(self.fine**2 / (self.fixed != 0).sum())
        return [fft.ifft2(spectrum * sphere).real for (sphere,) in spheres]


@dataclass(frozen=True, eq=False)
class VaryingOptics:
    """The interpolated images: `coefficients` (V, U, S, Z, P, P), int16 times `scale`, a spline over depth."""

    optics: OpticsModel
    field: Field
    z_um: FloatArray
    coefficients: npt.NDArray[np.int16]
    scale: float
    mean_peak: float
    """Mean over the visible depth of the largest contrast, in the middle of the field, mean diameter."""

    @property
    def half_px(self) -> int:
        return int(self.coefficients.shape[-1]) // 2

    def stack(self, x_px: float, y_px: float, size: float, low_um: float, high_um: float) -> LocalImages:
        """The images of one particle, at local depths between `low_um` and `high_um`."""
        u, v = (float(part) for part in self.field.place(x_px, y_px))
        corner = self.field.corner
        weight = np.einsum(
            "v,u,s->vus",
            _lagrange(V_NODES, abs(v) / corner[1]) if len(self.coefficients) > 1 else np.ones(1),
            _lagrange(U_NODES, abs(u) / corner[0]) if self.coefficients.shape[1] > 1 else np.ones(1),
            _lagrange(SIZES, size),
        )
        step = self.z_um[1] - self.z_um[0]
        first = max(int((low_um - self.z_um[0]) // step) - 1, 0)
        last = min(int((high_um - self.z_um[0]) // step) + 3, self.z_um.size)
        out = np.zeros((max(last - first, 0), *self.coefficients.shape[-2:]), np.float32)
        if out.size:
            flat = self.coefficients.reshape(-1, *self.coefficients.shape[-3:])
            _mix(flat, (weight.ravel() * self.scale).astype(np.float32), first, out)
        if len(self.coefficients) > 1:
            out = out[:, :: -1 if v < 0 else 1, :: -1 if u < 0 else 1]
        return LocalImages(float(self.z_um[first]) if out.size else 0.0, float(step), out)

    def image(self, particle: Drawn, n: int, stack: LocalImages | None = None) -> tuple[int, int, FloatArray]:
        """Row and column of the first pixel of the image of the nth particle, and its contrast (P, P)."""
        x, y, z, size, brightness = (float(part[n]) for part in particle)
        sx, sy, local = (float(part) for part in self.field.seen(x, y, z, self.optics.pixel_size_um))
        if stack is None:
            stack = self.stack(x, y, size, local, local)
        column, row = round(sx), round(sy)
        found = stack.at(local, sx - column, sy - row)
        return row - self.half_px, column - self.half_px, brightness * found

    def contrast(self, particles: Drawn, stacks: list[LocalImages] | None = None) -> npt.NDArray[np.float32]:
        """The sum (H, W) of all images."""
        out = np.zeros(self.field.shape, np.float32)
        for n in range(len(particles.x_px)):
            row, column, image = self.image(particles, n, None if stacks is None else stacks[n])
            add(out, row, column, image)
        return out

    @property
    def background(self) -> float:
        """Grey value of an empty image."""
        return GREY_LEVELS * BACKGROUND_OF_FULL_SCALE[self.optics.polarity]

    def exposed(
        self, contrast: npt.NDArray[np.float32], snr: float, rng: np.random.Generator, light: float = 1.0
    ) -> npt.NDArray[np.uint8]:
        """What an 8-bit camera makes of it: shot noise for this SNR (as `Renderer`), rounding."""
        sign = -1 if self.optics.polarity == "dark" else 1
        relative = light * np.maximum(1 + sign * contrast, 0)
        sd = math.sqrt(max((self.background * self.mean_peak / snr) ** 2 - 1 / 12, 0.0))
        grey = self.background * relative + sd * np.sqrt(relative) * rng.standard_normal(
            contrast.shape, np.float32
        )
        return np.clip(np.rint(grey), 0, GREY_LEVELS).astype(np.uint8)

    def bound(self, particles: Drawn, n: int, snr: float) -> FloatArray:
        """Cramer-Rao bound of x, y, z (um) of the nth particle, alone: brightness and background are unknown too.

        The derivatives are central differences of the image by the place and depth in the sample, so that walk and
        surface are in them; the diameter counts as known.
        """
        pixel_um = self.optics.pixel_size_um
        base = Drawn(*(np.array([part[n]], float) for part in particles))
        x, y, z, size, _ = (float(part[0]) for part in base)
        local = float(self.field.seen(x, y, z, pixel_um)[2])
        stack = self.stack(x, y, size, local - 3, local + 3)
        row0, column0, image = self.image(base, 0, stack)
        rows = [image / float(base.brightness[0]), np.ones_like(image)]
        for name, step in (("z_um", 0.5), ("y_px", 0.05), ("x_px", 0.05)):
            sides = []
            for sign in (-1, 1):
                moved = base._replace(**{name: getattr(base, name) + sign * step})
                sx, sy, depth = (
                    float(part) for part in self.field.seen(*(p[0] for p in moved[:3]), pixel_um)
                )
                sides.append(
                    moved.brightness[0]
                    * stack.at(depth, sx - (column0 + self.half_px), sy - (row0 + self.half_px))
                )
            in_um = 2 * step * (1 if name == "z_um" else pixel_um)
            rows.insert(0, (sides[1] - sides[0]) / in_um)
        jacobian = np.array(rows).reshape(5, -1)
        sign = -1 if self.optics.polarity == "dark" else 1
        inside = self._inside(row0, column0)
        weight = inside.ravel() * (snr / self.mean_peak) ** 2 / np.maximum(1 + sign * image, 0.05).ravel()
        information = (jacobian * weight) @ jacobian.T
        return np.sqrt(np.diag(np.linalg.inv(information))[:3])

    def _inside(self, row: int, column: int) -> npt.NDArray[np.bool_]:
        points = 2 * self.half_px + 1
        rows, columns = row + np.arange(points), column + np.arange(points)
        height, width = self.field.shape
        inside: npt.NDArray[np.bool_] = ((rows >= 0) & (rows < height))[:, None] & (
            (columns >= 0) & (columns < width)
        )
        return inside


class LocalImages(NamedTuple):
    """Spline over depth (J, P, P) of the images of one particle at one place."""

    first_um: float
    step_um: float
    coefficients: npt.NDArray[np.float32]

    def at(self, z_um: float, dx_px: float, dy_px: float) -> FloatArray:
        """The image (P, P) at a local depth, its centre off the middle pixel; 0 beyond the nodes."""
        node = (z_um - self.first_um) / self.step_um
        below = math.floor(node)
        points = self.coefficients.shape[-1]
        if below < 1 or below + 2 >= len(self.coefficients):
            return np.zeros((points, points))
        t = node - below
        weights = (
            np.array([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
        )
        image = np.tensordot(weights, self.coefficients[below - 1 : below + 3].astype(float), 1)
        if dx_px == 0 and dy_px == 0:
            return np.asarray(image)
        room = fft.next_fast_len(points + 4, real=True)
        phase = fft.fftfreq(room)[:, None] * dy_px + fft.rfftfreq(room) * dx_px
        spectrum = fft.rfft2(image, s=(room, room)) * np.exp(-2j * np.pi * phase)
        return np.asarray(fft.irfft2(spectrum, s=(room, room))[:points, :points])


def add(out: npt.NDArray[np.float32], row: int, column: int, image: FloatArray) -> None:
    """Add an image to `out` where they overlap."""
    height, width = out.shape
    top, left = max(row, 0), max(column, 0)
    bottom, right = min(row + image.shape[0], height), min(column + image.shape[1], width)
    if top < bottom and left < right:
        out[top:bottom, left:right] += image[top - row : bottom - row, left - column : right - column]


def load(optics: OpticsModel, of: Field, cache: Path | None = None, *, say: Any = print) -> VaryingOptics:
    """The images, computed once (minutes) and then read from `cache`, by default the user's folder."""
    folder = cache or platformdirs.user_cache_path("liveptv") / "varying-optics"
    key = (
        f"{VERSION} {optics.model_dump_json()} {json.dumps(asdict(of))} {DEPTH_STEP_UM} {SIZES} {DIRECTIONS}"
    )
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:20]}.npy"
    steps = math.ceil(optics.range_um / DEPTH_STEP_UM) + 2
    z_um = DEPTH_STEP_UM * np.arange(-steps, steps + 1)
    if not path.is_file():
        _compute(path, optics, of, z_um, say)
    facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return VaryingOptics(optics, of, z_um, np.load(path, mmap_mode="r"), facts["scale"], facts["mean_peak"])


def _compute(path: Path, optics: OpticsModel, of: Field, z_um: FloatArray, say: Any) -> None:
    still = of.still() == of
    u_nodes, v_nodes = (np.zeros(1), np.zeros(1)) if still else (U_NODES, V_NODES)
    points = points_of(optics)
    mean = _peaks(optics, of, z_um)
    scale = 2.0 * float(mean.max()) / np.iinfo(np.int16).max
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part.npy")
    table = np.lib.format.open_memmap(
        part, "w+", np.int16, (v_nodes.size, u_nodes.size, SIZES.size, z_um.size, points, points)
    )
    for i, v in enumerate(v_nodes):
        for j, u in enumerate(u_nodes):
            images = at_place(optics, of, u * of.corner[0], v * of.corner[1], z_um, SIZES)
            spline = ndimage.spline_filter1d(images, order=3, axis=1, mode="mirror", output=np.float32)
            table[i, j] = np.rint(np.clip(spline / scale, -32767, 32767))
            say(f"images at place {i * u_nodes.size + j + 1} of {u_nodes.size * v_nodes.size}", flush=True)
    table.flush()
    del table
    visible = np.abs(z_um) <= optics.visible_um
    facts = {"scale": scale, "mean_peak": float(mean[visible].mean())}
    path.with_suffix(".json").write_text(json.dumps(facts), encoding="utf-8")
    part.replace(path)


def _peaks(optics: OpticsModel, of: Field, z_um: FloatArray) -> FloatArray:
    """Largest contrast of the mean sphere in the middle at each depth."""
    middle = at_place(optics, of, 0.0, 0.0, z_um, np.ones(1))[0]
    return np.asarray(middle.max(axis=(1, 2)), float)


def _lagrange(nodes: FloatArray, at: float) -> FloatArray:
    """Weights of the values at `nodes` in the polynomial through them, at one place."""
    return np.array(
        [
            math.prod((at - other) / (node - other) for k, other in enumerate(nodes) if k != n)
            for n, node in enumerate(nodes)
        ]
    )


@njit(cache=True, nogil=True, fastmath=True)
def _mix(table: Any, weight: Any, first: int, out: Any) -> None:
    """Add table (N, Z, P, P) times weight (N,) to out (J, P, P), from depth `first` on."""
    for n in range(weight.size):
        if weight[n] != 0.0:
            for j in range(out.shape[0]):
                for r in range(out.shape[1]):
                    for c in range(out.shape[2]):
                        out[j, r, c] += weight[n] * np.float32(table[n, first + j, r, c])
