"""SLURM by dask-jobqueue: workers are jobs of their own, which come and go while one batch runs.

    pip install dask-jobqueue
    python batch_dask.py FOLDER_OR_LIST model.onnx RESULTS --jobs 40 [options of liveptv batch]

Run it where jobs can be submitted and where it may run for as long as the batch takes. Long recordings are shared
among the workers in pieces. A job that ends early gives its work to the others.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from dask_jobqueue import SLURMCluster

parser = argparse.ArgumentParser(description="liveptv batch on a SLURM cluster")
parser.add_argument("recordings")
parser.add_argument("model")
parser.add_argument("results")
parser.add_argument("--jobs", type=int, default=10, help="number of jobs, of one worker each")
parser.add_argument("--memory", default="4GB", help="of a job")
parser.add_argument("--hours", type=float, default=4.0, help="after which SLURM ends a job")
parser.add_argument("--queue", help="partition")
parser.add_argument("--show", action="store_true", help="print the script of a job and end")
arguments, options = parser.parse_known_args()

minutes = round(60 * arguments.hours)
cluster = SLURMCluster(
    job_name="liveptv",
    queue=arguments.queue,
    cores=1,
    processes=1,
    memory=arguments.memory,
    walltime=f"{minutes // 60}:{minutes % 60:02d}:00",
    # a worker that leaves by itself, before SLURM ends its job, hands its recording on; one that is ended counts as
    # lost, and dask gives up a task that has lost four workers
    worker_extra_args=["--lifetime", f"{max(1, minutes - 5)}m", "--lifetime-stagger", "2m"],
)
if arguments.show:
    print(cluster.job_script())
    sys.exit(0)
cluster.scale(jobs=arguments.jobs)
command = ["batch", arguments.recordings, "--model", arguments.model, "--output", arguments.results]
status = subprocess.call(["liveptv", *command, "--scheduler", cluster.scheduler_address, *options])
cluster.close()
sys.exit(status)
