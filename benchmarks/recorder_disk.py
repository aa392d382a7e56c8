"""What a run and its recording do when the disk of the recording is full, slow, or fails.

Runs of the simulated microscope with `record.mode = "all"`, by the command line, on disks that are made for it:
a small tmpfs (full), a library that is loaded before libc and delays writes into one folder or refuses them
(slower than the camera; EIO for a while, or for good), and an ext4 on a loop device whose file
cannot grow (errors of the kernel itself). Both policies of `record.when_full`. For each: how the run ended, the
frames of the trajectory file and of the account, and whether every frame is stored or declared lost. Needs
Linux, root (mounts, in a name space of their own) and a C compiler; what is missing is said. Device-mapper,
which could fail single sectors, is not used: this kernel has none.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from reporting import save

from acquisition.recorder.closing import account_of_recording, close_table, undeclared
from acquisition.recorder.frame_table import read_frame_table
from stream.errors import LivePTVError
from stream.link import PeerState, Policy
from stream.links import open_sender
from tracking.trajectories.file import read_trajectories

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "acquisition"))
from recorded import frame, images_in, wrong_in

HELPERS = Path(__file__).resolve().parents[1] / "tests" / "acquisition"
SIZE, STAGE_HZ = (480, 640), 40.0  # frames of the stage alone: 12 MB/s
ROOT = Path(__file__).resolve().parents[1]
INSIDE = "LIVEPTV_BENCH_INSIDE"
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static double rate(int fd, int *error) { /* bytes/s, 0: no limit; errno to fail with */
  char link[64], path[4096], rule[64] = "";
  const char *folder = getenv("SHIM_FOLDER");
  *error = 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n < 0 || !folder) return 0;
  path[n] = 0;
  if (strncmp(path, folder, strlen(folder))) return 0;
  FILE *file = fopen(getenv("SHIM_RULE"), "r");
  if (!file) return 0;
  if (!fgets(rule, sizeof rule, file)) rule[0] = 0;
  fclose(file);
  if (!strncmp(rule, "errno ", 6)) *error = atoi(rule + 6);
  return !strncmp(rule, "rate ", 5) ? atof(rule + 5) : 0;
}
static int before(int fd, size_t bytes) {
  int error;
  double limit = rate(fd, &error);
  if (error) { errno = error; return -1; }
  if (limit > 0) {
    double s = bytes / limit;
    struct timespec t = {(time_t)s, (long)((s - (time_t)s) * 1e9)};
    nanosleep(&t, 0);
  }
  return 0;
}
static size_t total(const struct iovec *v, int n) { size_t s = 0; while (n--) s += v[n].iov_len; return s; }
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
ssize_t write(int fd, const void *b, size_t n) { return before(fd, n) ? -1 : REAL(write)(fd, b, n); }
ssize_t pwritev(int fd, const struct iovec *v, int n, off_t o) {
  return before(fd, total(v, n)) ? -1 : REAL(pwritev)(fd, v, n, o);
}
ssize_t pwritev64(int fd, const struct iovec *v, int n, off64_t o) {
  return before(fd, total(v, n)) ? -1 : REAL(pwritev64)(fd, v, n, o);
}
ssize_t pwritev2(int fd, const struct iovec *v, int n, off_t o, int f) {
  return before(fd, total(v, n)) ? -1 : REAL(pwritev2)(fd, v, n, o, f);
}
ssize_t pwritev64v2(int fd, const struct iovec *v, int n, off64_t o, int f) {
  return before(fd, total(v, n)) ? -1 : REAL(pwritev64v2)(fd, v, n, o, f);
}
int fdatasync(int fd) { return before(fd, 0) ? -1 : REAL(fdatasync)(fd); }
int fsync(int fd) { return before(fd, 0) ? -1 : REAL(fsync)(fd); }
"""
EXPERIMENT = """
[run]
seconds = {seconds}
output = "{tracks}"
overwrite = true
[microscope]
config = "simulated"
[record]
mode = "all"
format = "{kind}"
output = "{images}"
when_full = "{policy}"
keep_free_mb = {keep_free}
buffer_mb = 32
"""


def run(
    folder: Path,
    disk: Path,
    *,
    kind: str,
    policy: str,
    keep_free: float,
    seconds: float,
    shim: Path | None,
    during: list[tuple[float, Any]],
    same_disk: bool = False,
) -> dict[str, Any]:
    """One run; `during`: what is done how many seconds after its first stored frame."""
    images = disk / f"tracks.frames.{'ome.zarr' if kind == 'ome-zarr' else 'ome.tif'}"
    tracks = (disk if same_disk else folder) / "tracks.h5"
    experiment = folder / "e.toml"
    experiment.write_text(
        EXPERIMENT.format(
            seconds=seconds, tracks=tracks, images=images, kind=kind, policy=policy, keep_free=keep_free
        )
    )
    rule = folder / "rule"
    rule.write_text("")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SHIM_FOLDER": str(disk), "SHIM_RULE": str(rule)}
    if shim is not None:
        environment["LD_PRELOAD"] = str(shim)
    process = subprocess.Popen(
        [sys.executable, "-m", "liveptv", "run", str(experiment)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    table = disk / "tracks.frames.jsonl"
    until_s = time.monotonic() + 90
    while not table.exists() and process.poll() is None and time.monotonic() < until_s:
        time.sleep(0.02)
    began_s = time.monotonic()
    for at_s, action in during:
        time.sleep(max(0.0, began_s + at_s - time.monotonic()))
        if process.poll() is None:
            action(rule)
    try:
        said = process.communicate(timeout=120)[0]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        said = process.communicate()[0] + "\nhung"
    rule.write_text("")
    found: dict[str, Any] = {"format": kind, "policy": policy, "exit": process.returncode}
    try:
        file = read_trajectories(tracks)
        account = file.attributes["account"]
        found |= {
            "ended": file.attributes["session_end_reason"],
            "in_file": len(file.frames),
            "exposed": account["exposed"],
            "lost_before_file": sum(account["lost"].values()),
            "recording_attribute": file.attributes.get("recording"),
            "received": file.attributes["accounts"]["acquire"]["received"],
        }
    except (LivePTVError, KeyError) as error:
        found["trajectories"] = str(error)
    try:
        content = read_frame_table(table)
        stored = images_in(images)
        found |= {
            "rows": len(content.rows),
            "images": len(stored),
            "declared_lost": content.total_lost,
            "undeclared": sum(each.count for each in undeclared(content, found.get("received", 0))),
            "why": list(account_of_recording(content, "").lost),
        }
    except Exception as error:  # noqa: BLE001 - a disk that is gone
        found["recording"] = f"{type(error).__name__}: {error}"
    events = (disk if same_disk else folder) / "tracks.events.jsonl"
    lines = [json.loads(line) for line in events.read_text().splitlines()] if events.exists() else []
    found["told"] = [line["text"] for line in lines if line["kind"] in {"recorder", "lost", "policy"}][1:]
    if "in_file" not in found:
        found["said"] = said[-600:]
    return found


def stage_alone(
    folder: Path, disk: Path, *, kind: str, policy: str, shim: Path | None, during: list[tuple[float, Any]],
    seconds: float = 6.0, **_more: Any,
) -> dict[str, Any]:  # fmt: skip
    """The recording stage alone, given frames of known pixels at a camera's rate: what is stored, is it right?"""
    images = disk / f"tracks.frames{'.ome.zarr' if kind == 'ome-zarr' else '.ome.tif'}"
    rule = folder / "rule"
    rule.write_text("")
    sender = open_sender(
        "shm://127.0.0.1:0", run_id="a run", source="bench", slot_bytes=SIZE[0] * SIZE[1], slots=24, credits=23,
        policy=Policy.DROP_NEWEST,
    )  # fmt: skip
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(HELPERS))), "WHEN_FULL": policy,
        "SHIM_FOLDER": str(disk), "SHIM_RULE": str(rule), "LD_PRELOAD": str(shim or ""),
    }  # fmt: skip
    child = subprocess.Popen(
        [sys.executable, HELPERS / "recorded.py", sender.address, disk / "tracks.h5", kind, "none", "uint8",
         *map(str, SIZE)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    number, began_s, todo = 0, math.inf, list(during)
    sent_s = time.monotonic()
    while child.poll() is None and time.monotonic() - began_s < seconds:
        if sender.peer is PeerState.CONNECTED and began_s == math.inf:
            began_s = time.monotonic()
        if began_s < math.inf and time.monotonic() >= sent_s:
            sent_s = time.monotonic() + 1 / STAGE_HZ
            sender.send(frame(number, SIZE, "uint8"), 0.0)
            number += 1
        while todo and time.monotonic() - began_s >= todo[0][0]:
            todo.pop(0)[1](rule)
        time.sleep(0.001)
    sender.end()
    try:
        error = child.communicate(timeout=60)[1]
    except subprocess.TimeoutExpired:
        child.kill()
        error = child.communicate()[1] + " hung"
    rule.write_text("")
    account = sender.close()
    found: dict[str, Any] = {
        "format": kind, "policy": policy, "exit": child.returncode, "sent": number, "ring_dropped": account.dropped,
        "balanced": account.balanced,
    }  # fmt: skip
    try:
        before = read_frame_table(disk / "tracks.frames.jsonl")
        found["declared_by_stage"] = before.total_lost
        closed = close_table(disk / "tracks.frames.jsonl", "a run", number)
        table = read_frame_table(disk / "tracks.frames.jsonl")
        undeclared_frames = number - closed.stored - closed.total_lost
        found |= {"stored": closed.stored, "lost": closed.lost, "undeclared": undeclared_frames}
        found["wrong"] = wrong_in(images, table)
    except Exception as failure:  # noqa: BLE001 - a disk that is gone
        found["recording"] = f"{type(failure).__name__}: {failure}"
    found["told"] = [line for line in error.splitlines() if "record" in line or "disk" in line][-4:]
    return found


def says(text: str) -> Any:
    return lambda rule: rule.write_text(text)


def cases(folder: Path, shim: Path | None, only: str, alone: bool) -> list[dict[str, Any]]:
    rows = []

    def do(case: str, disk: Path, **how: Any) -> None:
        if only and only not in case:
            return
        for policy in ("go_on", "stop"):
            for kind in ("ome-zarr", "ome-tiff"):
                if policy == "stop" and kind == "ome-tiff" and not alone:
                    continue
                more = {name: value() if callable(value) else value for name, value in how.items()}
                for path in list(disk.glob("tracks*")) + list(folder.glob("tracks*")):
                    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
                options = {"keep_free": 0, "seconds": 8, "shim": None, "during": []} | more
                what = stage_alone if alone else run
                row = {"case": case, "what": "stage" if alone else "run"}
                row |= what(folder, disk, kind=kind, policy=policy, **options)
                rows.append(row)
                print(json.dumps(row), flush=True)

    small = folder / "small"
    small.mkdir()
    if (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(small)], check=False
        ).returncode
        == 0
    ):
        do("full disk, trajectories elsewhere", small)
        if not alone:
            do("full disk, trajectories on it, 20 MB kept free", small, keep_free=20, same_disk=True)
        subprocess.run(["umount", str(small)], check=False)
    else:
        print("no mounts here: the full disk is not tried")
    if shim is not None:
        slow = folder / "slow"
        slow.mkdir()
        do("disk of 4 MB/s, camera of 12 MB/s", slow, shim=shim, during=[(0.5, says("rate 4e6"))])
        failing = [(2.0, says("errno 5")), (4.0, says(""))]
        do("disk fails (EIO) for 2 s", slow, shim=shim, during=failing)
        do("disk fails (EIO) for good", slow, shim=shim, during=failing[:1])
    loop_disk(folder, do)
    return rows


def loop_disk(folder: Path, do: Any) -> None:
    """An ext4 on a loop device whose file cannot grow: from some MB on the kernel's writes fail."""
    under, disk = folder / "under", folder / "loop"
    image = under / "disk.img"
    for each in (under, disk):
        each.mkdir()

    def fresh() -> list[Any]:
        for each in (disk, under):
            subprocess.run(["umount", "-l", str(each)], check=False, capture_output=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(under)], check=True)
        with image.open("wb") as file:
            file.truncate(400_000_000)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(disk)], check=True)
        return []

    try:
        fresh()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"no loop device here: {error}")
        return
    do("disk dies (errors of the kernel)", disk, during=fresh)
    for each in (disk, under):
        subprocess.run(["umount", "-l", str(each)], check=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--stage", action="store_true", help="the recording stage alone, not whole runs")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    if INSIDE not in os.environ and os.geteuid() == 0 and shutil.which("unshare"):
        os.execvpe("unshare", ["unshare", "-m", sys.executable, *sys.argv], {**os.environ, INSIDE: "1"})
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shim: Path | None = folder / "shim.so"
        (folder / "shim.c").write_text(SHIM)
        compiled = subprocess.run(
            ["cc", "-shared", "-fPIC", "-O1", "-o", str(shim), str(folder / "shim.c"), "-ldl"], check=False
        )
        if compiled.returncode:
            print("no C compiler: the slow and the failing disk are not tried")
            shim = None
        rows = cases(folder, shim, options.only, options.stage)
    if options.json is not None:
        save(options.json, rows)


if __name__ == "__main__":
    main()
