"""Examples of the DeepTrack package, as their notebooks have them: trained on, detected, and run live.

    python benchmarks/deeptrack_examples.py NOTEBOOKS NAME ... --minutes 20 --json rows.json

NOTEBOOKS is a folder with the package's tutorials (https://github.com/DeepTrackAI/DeepTrack2, below `tutorials`);
their text is not part of this repository. Everything goes by the command line, as a user's would: `liveptv train
--images NOTEBOOK.ipynb:VARIABLE`, in one process; `liveptv detect` on images that no training used, written in 16
bits with another gain and offset; `liveptv run` with the objects in the simulated microscope, behind the real core
of Micro-Manager, in simulated time. The image model for matched filters and fit is beside it where there is one.
Models that are in --work are not trained again. Needs the extras `train` and `deeptrack`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
from reporting import save
from scipy import ndimage

import liveptv
from calibration.deeptrack.grey_values import as_grey, gain_for
from calibration.deeptrack.labels import Term, objects_of, unit_of
from calibration.deeptrack.loading import load_pipeline
from calibration.deeptrack.recording import Drawn, Recorder
from calibration.deeptrack.survey import property_of, unit_scale
from calibration.matching import match, nearest_neighbour

GATE_PX = 3.0
SEED = 5 << 28
"""Of the test images; those of a training, of the survey and of the image model have others."""
GAIN, OFFSET = 0.6, 1500.0
"""Grey values for a unit of the image, over what the simulated microscope would take, and without light."""
FULL_SCALE = 65535.0
LIVE_FRAMES, LIVE_RATE_HZ, DIFFUSION_UM2_S = 60, 20.0, 0.05
WAYS = {"network": ".onnx", "image-model": ".h5"}
PLACE = ["x_um", "y_um", "z_um"]
HALF_PX = 8
"""Half the window in which an object's light is added up."""
LONE_PX = 2 * HALF_PX
"""Objects with no neighbour nearer than this are lone: no window of theirs has another object's middle."""
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Example:
    """The variable of a notebook that makes the images, what to learn, and a sample of such objects.

    Live, `per_frame` objects are in a layer `depth_um` thick, in the middle of which the focus is.
    """

    variable: str
    learn: tuple[str, ...]
    per_frame: int
    depth_um: float


EXAMPLES = {
    "DTGS121": Example("normalized_image_of_particle", (), 1, 0.2),
    "DTGS131": Example("image_features", (), 6, 0.2),
    "DTGS141": Example("image_of_particles", ("radius",), 20, 2.0),
    "DTEx213": Example("simulated_particles", (), 15, 2.0),
}
MICROSCOPE = """Property,Core,Initialize,0
#py pyDevice,Camera,calibration.deeptrack.camera,PipelineCamera
#py pyDevice,Focus,acquisition.simulated.devices,SimulatedFocus
#py Property,Camera,ChannelDepth_um,{depth_um}
#py Property,Camera,ParticleDiameter_um,0.1
#py Property,Camera,ParticlesPerFrame,{per_frame}
#py Property,Camera,Margin_um,1
#py Property,Camera,Seed,3
#py Property,Focus,StartPosition_um,{focus_um}
Property,Core,Initialize,1
#py Property,Core,Camera,Camera
#py Property,Core,Focus,Focus
Property,Core,AutoShutter,0
"""

EXPERIMENT = """[run]
frames = {frames}

[microscope]
config = {config}
properties = {{ {properties} }}

[session]
mode = "threads"  # in one process, which starts sooner
start_timeout_s = 1500  # on a busy machine
"""


def command(*words: object) -> tuple[str, float]:
    """Run `liveptv` with these words; returns what it said, and the processor time that it took, s."""
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-m", "liveptv", *map(str, words)], capture_output=True, text=True, check=False
    )
    after = os.times()
    took_s = after.children_user + after.children_system - before.children_user - before.children_system
    if done.returncode:
        raise RuntimeError(f"liveptv {words[0]}: {done.stderr or done.stdout}")
    return done.stdout, took_s


def fresh_images(pipeline: str, example: Example, count: int, path: Path) -> tuple[pd.DataFrame, float]:
    """Write images of the pipeline as a camera would; returns the truth, in um, and the size of a pixel."""
    file, _, name = pipeline.rpartition(":")
    recorder = Recorder(load_pipeline(Path(file), name))
    terms = [Term.of(text) for text in example.learn]
    drawn = [recorder.draw(SEED + number) for number in range(count)]
    gain = GAIN * gain_for(drawn[0].image, OFFSET, FULL_SCALE)
    images = [as_grey(each.image, gain, OFFSET, np.dtype(np.uint16)) for each in drawn]
    pixel_um = float(np.nanmedian([each.pixel_size_um[0] for each in drawn]))
    tifffile.imwrite(path, np.array(images), photometric="minisblack")
    kinds = sorted({recorder.name_of(each) for each in recorder.scatterers})
    tables = []
    for frame, each in enumerate(drawn):
        found = objects_of(each, terms)
        table = pd.DataFrame({"frame": frame, "x_um": found.x_px * pixel_um, "y_um": found.y_px * pixel_um})
        table["z_um"] = found.z_um
        table["stands_out"] = stands_out(each, found.x_px, found.y_px)
        table["kind"] = [kinds.index(recorder.name_of(recorder.scatterers[n])) for n in found.source]
        for term, values in zip(terms, found.values.T, strict=True):
            owner = next(s for s in recorder.scatterers if term.key in s.properties)
            table[property_of(recorder, term)[0]] = values * unit_scale(unit_of(owner, term.key))
        height, width = each.image.shape
        x, y = found.x_px, found.y_px
        tables.append(table[(x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)])
    return pd.concat(tables, ignore_index=True), pixel_um


def stands_out(drawn: Drawn, x_px: np.ndarray, y_px: np.ndarray) -> np.ndarray:
    """How far lone objects (N,) stand out: root of the sum of squares of their noise-free images, over the noise.

    It is the signal-to-noise ratio of the filter that is matched to the object, the best there is in white noise.
    Of objects at 8, a threshold of 4.5 misses 2 in 10,000, with a false one in 20 images of 128 x 128 px. NaN where
    others are near, where the window leaves the image, and where images are not of the microscopes' shape.
    """
    found = np.full(len(x_px), np.nan)
    clean = sum(np.squeeze(np.asarray(view)) for view in drawn.views)
    if np.shape(clean) != drawn.image.shape or np.iscomplexobj(clean):
        return found
    scale, _ = np.polyfit(clean.ravel(), drawn.image.ravel(), 1)
    noise = float(
        np.std(drawn.image - ndimage.uniform_filter(drawn.image - scale * clean, 15) - scale * clean)
    )
    down, across = np.mgrid[-HALF_PX : HALF_PX + 1, -HALF_PX : HALF_PX + 1]
    edge = np.maximum(np.abs(down), np.abs(across)) == HALF_PX
    plane = np.column_stack([np.ones(down.size), down.ravel(), across.ravel()])
    lone = nearest_neighbour(np.column_stack([x_px, y_px])) >= LONE_PX
    inside = np.minimum(x_px, y_px) >= HALF_PX
    inside &= (x_px < clean.shape[1] - HALF_PX - 1) & (y_px < clean.shape[0] - HALF_PX - 1)
    for n in np.flatnonzero(lone & inside):
        window = clean[round(y_px[n]) + down, round(x_px[n]) + across]
        ground = np.linalg.lstsq(plane[edge.ravel()], window[edge], rcond=None)[0]
        found[n] = abs(scale) * float(np.linalg.norm(window.ravel() - plane @ ground)) / noise
    return found


def scores(truth: pd.DataFrame, found: pd.DataFrame, pixel_um: float) -> Row:
    """Recall, precision, errors of places in px and of what else is measured, and errors over stated ones."""
    pairs = []
    for frame in range(int(truth.frame.max()) + 1):
        true, seen = (np.flatnonzero(table.frame == frame) for table in (truth, found))
        there, here = truth.iloc[true][PLACE].to_numpy(float), found.iloc[seen][PLACE].to_numpy(float)
        mine, theirs = match(there, here, GATE_PX * pixel_um, None)
        pairs.append(np.column_stack([true[mine], seen[theirs]]))
    true, seen = np.concatenate(pairs).T
    right, measured = truth.iloc[true].reset_index(), found.iloc[seen].reset_index()
    row: Row = {
        "objects": len(truth),
        "detections": len(found),
        "recall": len(true) / len(truth),
        "precision": len(true) / max(1, len(found)),
    }
    if "stands_out" in truth:
        lone, was_found = truth.stands_out.notna(), np.isin(np.arange(len(truth)), true)
        for kind in sorted(set(truth.kind[lone])):
            mine = lone & (truth.kind == kind)
            quantiles = np.quantile(truth.stands_out[mine], (0, 0.05, 0.5))
            row.setdefault("lone_of_kinds", []).append(
                {
                    "objects": int(mine.sum()),
                    "recall": float(was_found[mine].mean()),
                    "stands_out_least_5_percent_half": quantiles.tolist(),
                }
            )
    if "kind" in found and truth.kind.nunique() > 1:
        row["kind_right"] = float((right.kind == measured.kind).mean())
        row["kind_stated"] = float(measured.p_kind.mean())
        row["recall_of_kinds"] = [
            float(np.isin(np.flatnonzero(truth.kind == kind), true).mean())
            for kind in sorted(set(truth.kind))
        ]
    for name in [
        column
        for column in truth
        if column not in ("frame", "kind", "stands_out") and f"sigma_{column}" in found
    ]:
        stated = measured[f"sigma_{name}"].to_numpy(float)
        error = (measured[name] - right[name]).to_numpy(float)
        known = np.isfinite(error) & (stated > 0)
        if known.any():
            unit = pixel_um if name in ("x_um", "y_um") else 1.0
            label = name.replace("_um", "_px") if unit != 1.0 else name
            row[f"{label}_rms"] = float(np.sqrt(np.mean(error[known] ** 2))) / unit
            row[f"{label}_median"] = float(np.median(np.abs(error[known]))) / unit
            row[f"{label}_over_stated"] = float(np.sqrt(np.mean((error[known] / stated[known]) ** 2)))
    return row


def live(pipeline: str, example: Example, model: Path, folder: Path, pixel_um: float) -> Row:
    """Run the objects of the pipeline in the simulated microscope, and score what the file has."""
    microscope, truth, tracks = (folder / name for name in ("microscope.cfg", "truth.csv", "tracks.h5"))
    focus_um = example.depth_um / 2
    text = MICROSCOPE.format(depth_um=example.depth_um, focus_um=focus_um, per_frame=example.per_frame)
    microscope.write_text(text, encoding="utf-8")
    properties = {
        "Camera.Pipeline": pipeline,
        "Camera.FrameRate": LIVE_RATE_HZ,
        "Camera.Diffusion_um2_s": DIFFUSION_UM2_S,
        "Camera.RealTime": 0,
        "Camera.TruthFile": str(truth),
    }
    experiment = folder / "experiment.toml"
    experiment.write_text(
        EXPERIMENT.format(
            frames=LIVE_FRAMES,
            config=json.dumps(str(microscope)),
            properties=", ".join(
                f"{json.dumps(name)} = {json.dumps(value)}" for name, value in properties.items()
            ),
        ),
        encoding="utf-8",
    )
    _, took_s = command("run", experiment, "-m", model, "-o", tracks, "--overwrite")
    view = liveptv.open_trajectories(tracks)
    rows = view.to_pandas()
    rows = rows[rows.frame < LIVE_FRAMES]
    own = {name: name.replace("detected_", "") for name in rows if "detected_" in name}
    found = rows.drop(columns=[name for name in own.values() if name in rows]).rename(columns=own)
    account = view.attributes["account"]
    lengths = rows.groupby("track").size()
    return {
        "frames": LIVE_FRAMES,
        "simulated_s": LIVE_FRAMES / LIVE_RATE_HZ,
        "frames_exposed": account["exposed"],
        "frames_in_file": account["in_file"],
        "frames_lost": sum(account["lost"].values()),
        "tracks": len(lengths),
        "frames_in_a_track_median": float(lengths.median()),
        "measured_too": sorted(own) + [name for name in ("kind",) if name in rows],
        "cpu_s": took_s,
    } | scores(pd.read_csv(truth), found, pixel_um)


def measure(
    name: str, notebooks: Path, work: Path, minutes: float, images: int, ways: list[str]
) -> list[Row]:
    """All rows of an example: one for each way to detect."""
    example = EXAMPLES[name]
    path = next(iter(sorted(notebooks.glob(f"**/{name}*.ipynb"))), None)
    if path is None:
        raise FileNotFoundError(f"{notebooks} has no notebook {name}*.ipynb")
    pipeline = f"{path}:{example.variable}"
    learn = ("--learn", ",".join(example.learn)) if example.learn else ()
    truth, pixel_um = fresh_images(pipeline, example, images, work / f"{name}.tif")
    rows = []
    for way in ways:
        ending = WAYS[way]
        model, made = work / f"{name}{ending}", work / f"{name}{ending}.json"
        row: Row = {"example": name, "way": way}
        row |= asdict(example) | {"deeptrack": version("deeptrack"), "seed": 0}
        if not model.is_file():
            extra = (*learn, "--minutes", minutes, "--processes", 1) if ending == ".onnx" else ()
            try:
                said, took_s = command("train", "--images", pipeline, "-o", model, *extra)
            except RuntimeError as error:
                if ending == ".onnx":
                    raise
                rows.append(row | {"refused": str(error).strip().splitlines()[-1]})
                continue
            made.write_text(json.dumps({"minutes": minutes, "cpu_s": took_s, "said": said.splitlines()}))
        if made.is_file():
            row["training"] = json.loads(made.read_text())
        table = work / f"{name}{ending}.csv"
        command(
            "detect", work / f"{name}.tif", "-m", model, "-o", table, "--pixel-size", pixel_um, "--overwrite"
        )
        row["images"] = images
        row["detect"] = scores(truth, pd.read_csv(table), pixel_um)
        folder = work / f"{name}-{ending[1:]}-live"
        folder.mkdir(exist_ok=True)
        row["live"] = live(pipeline, example, model, folder, pixel_um)
        rows.append(row)
        print(json.dumps(row, indent=1))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebooks", type=Path, help="folder with DeepTrack's tutorials")
    parser.add_argument("names", nargs="+", choices=sorted(EXAMPLES))
    parser.add_argument("--minutes", type=float, default=20.0, help="of each training")
    parser.add_argument("--images", type=int, default=24, help="fresh images to detect on")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="how to detect")
    parser.add_argument("--work", type=Path, default=Path("runs/deeptrack_examples"), help="models and files")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    work, rows = options.work.absolute(), []
    for name in options.names:
        rows += measure(name, options.notebooks, work, options.minutes, options.images, options.ways)
    if options.json is not None:
        save(options.json, rows)


if __name__ == "__main__":
    main()
