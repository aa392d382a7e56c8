"""How right the labels of a calibration are: simulated scans with known truth, and the real one of shared data.

The scans are at the conditions of Franchini & Krevor (2020): 3 um steps, 4 images, SNR 5.6, 5.4e-5 particles a
pixel; their own alignment scatters by 3.1 um. Times are of whole commands' work, reading and writing included.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from reporting import save
from scipy.spatial import KDTree

from acquisition.physics.image_table import load_bank
from acquisition.physics.optics import OpticsModel
from acquisition.physics.rendering import Renderer
from calibration.calibration_file import write_calibration
from calibration.pipeline import calibrate
from calibration.preparation import Options
from calibration.result import Calibration
from calibration.scan.planes import FocusScan

DATA = Path(__file__).parents[2] / "shared" / "data"
STEP_UM = 3.0
REPEATS = 4
SNR = 5.6
DENSITY = 5.4e-5
NEAR_PX = 35.0
PAPER_UM = 3.1
OPTICS = {
    "paper": OpticsModel(),
    "rings": OpticsModel(
        condenser_na=0.10,
        focal_line_separation_um=100.0,
        range_um=210.0,
        visible_um=180.0,
        particle_diameter_um=3.0,
    ),
}


def write_scan(
    path: Path, optics: OpticsModel, seed: int, shape: tuple[int, int], planes: int
) -> dict[str, Any]:
    """Simulate a scan; returns the truth, um."""
    rng = np.random.default_rng(seed)
    renderer = Renderer(load_bank(optics), shape, np.uint8, snr=SNR, seed=seed, shading=0.1)
    count, pixel = round(DENSITY * shape[0] * shape[1]), optics.pixel_size_um
    x, y = rng.uniform(0, shape[1] * pixel, count), rng.uniform(0, shape[0] * pixel, count)
    focus = (np.arange(planes) - (planes - 1) / 2) * STEP_UM
    reach = max(30.0, planes * STEP_UM / 2 - 120.0)
    z = rng.uniform(-reach, reach, count)
    image = np.empty(shape, np.uint8)

    def images():  # type: ignore[no-untyped-def]
        for at in focus:
            for _ in range(REPEATS):
                renderer.render(x, y, z - at, image)
                yield image.copy()

    at = [float(f) for f in np.repeat(focus, REPEATS)]
    metadata = {
        "axes": "ZTYX",
        "PhysicalSizeX": pixel,
        "PhysicalSizeY": pixel,
        "PhysicalSizeXUnit": "um",
        "PhysicalSizeYUnit": "um",
        "Plane": {"PositionZ": at, "PositionZUnit": ["um"] * len(at)},
    }
    tifffile.imwrite(path, images(), shape=(planes, REPEATS, *shape), dtype=np.uint8, metadata=metadata)
    return {"x": x, "y": y, "z": z, "separation": optics.focal_line_separation_um}


def compare(found: Calibration, truth: dict[str, Any]) -> dict[str, float]:
    """Errors of the labels against the truth."""
    table, pixel = found.particles, found.model.pixel_size_um
    tree = KDTree(np.column_stack([truth["x"], truth["y"]]))
    true = tree.query(np.column_stack([table.x_um, table.y_um]))[1]
    neighbour_px = tree.query(tree.data, k=2)[0][:, 1] / pixel
    alone, used = set(np.flatnonzero(neighbour_px > NEAR_PX)), set(true[table.used])
    z = (table.z_um - truth["z"][true])[table.used]
    offset = float(np.median(z))
    x = (table.x_um - truth["x"][true])[table.used] / pixel
    y = (table.y_um - truth["y"][true])[table.used] / pixel
    planes = found.focal_planes
    rms_um = float(np.sqrt(np.mean((z - offset) ** 2)))
    return {
        "particles": len(truth["x"]),
        "z_rms_um": round(rms_um, 3),
        "z_worst_um": round(float(np.abs(z - offset).max()), 2),
        "ratio_to_paper": round(rms_um / PAPER_UM, 3),
        "x_rms_px": round(float(np.sqrt(np.mean(x**2))), 4),
        "y_rms_px": round(float(np.sqrt(np.mean(y**2))), 4),
        "used_of_lone": round(len(used & alone) / len(alone), 3),
        "used_with_neighbour": len(used - alone),
        "focal_plane_errors_um": [
            round(planes.xz_um - truth["separation"] / 2, 2),
            round(planes.yz_um + truth["separation"] / 2, 2),
        ],
        "stated_z_um": round(float(np.median(table.sigma_z_um[table.used])), 3),
    }


def run(path: Path) -> tuple[Calibration, float, float]:
    """Calibrate and write; returns the result, seconds, and the size of the file, MB."""
    start_s = time.perf_counter()
    output = path.with_name("calibration.h5")
    with FocusScan(path) as scan:
        done = calibrate(scan, Options())
        write_calibration(output, done, scan)
    return done.calibration, time.perf_counter() - start_s, output.stat().st_size / 1e6


def main() -> None:
    """Run all cases, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent / "results" / "depth_labels.json"
    )
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.ome.tif"
        cases = [(name, seed, (720, 1280), 150) for name in OPTICS for seed in range(given.seeds)]
        cases.append(("paper", 100, (1440, 2560), 120))
        for name, seed, shape, planes in cases:
            truth = write_scan(path, OPTICS[name], seed, shape, planes)
            found, seconds, file_mb = run(path)
            row = {"optics": name, "seed": seed, "shape": shape, "planes": planes, **compare(found, truth)}
            row |= {
                "seconds": round(seconds, 1),
                "scan_mb": round(path.stat().st_size / 1e6),
                "file_mb": round(file_mb),
            }
            row["peak_memory_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
            rows.append(row)
            print(row, flush=True)
        real = DATA / "idpt-zscan" / "scan.ome.tif"
        if real.exists():
            found, seconds, _ = run_copy(real, Path(folder))
            assert found.surface is not None
            rows.append(
                {
                    "scan": "idpt-zscan",
                    "particles_found": len(found.particles),
                    "particles_used": int(found.particles.used.sum()),
                    "from_surface_rms_um": round(found.surface.residual_um, 3),
                    "from_surface_typical_um": round(found.surface.typical_um, 3),
                    "from_plane_rms_um": round(from_plane(found), 3),
                    "seconds": round(seconds, 1),
                }
            )
            print(rows[-1], flush=True)
    save(given.output, rows)


def run_copy(scan: Path, folder: Path) -> tuple[Calibration, float, float]:
    """As `run`, for a scan in a folder that is not to be written to."""
    copy = folder / "real.ome.tif"
    copy.write_bytes(scan.read_bytes())
    return run(copy)


def from_plane(found: Calibration) -> float:
    """Rms distance of the used particles from the best tilted plane, um."""
    table = found.particles
    used = table.used
    design = np.column_stack([np.ones(used.sum()), table.x_um[used], table.y_um[used]])
    solution, *_ = np.linalg.lstsq(design, table.z_um[used], rcond=None)
    return float(np.sqrt(np.mean((table.z_um[used] - design @ solution) ** 2)))


if __name__ == "__main__":
    main()
