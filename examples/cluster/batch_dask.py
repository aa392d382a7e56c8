"""SLURM by dask-jobqueue: workers are jobs of their own, which come and go while one batch runs.

    pip install "liveptv[batch]" dask-jobqueue cryptography
    python batch_dask.py FOLDER_OR_LIST model.onnx RESULTS --jobs 40 [options of liveptv batch]

Run it where jobs can be submitted and where it may run for as long as the batch takes, in a folder that all
computers see. Long recordings are shared among the workers in pieces. A job that ends early gives its work to
the others. Only who has this batch's own certificates reaches scheduler and workers.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from dask_jobqueue import SLURMCluster
from distributed.security import Security


def certificates(folder: Path) -> dict[str, str]:
    """Files with a new certificate and its key, for all who take part."""
    made = Security.temporary().get_tls_config_for_role("client")
    found = {
        "ca_file": str(folder / "ca.pem"),
        "cert": str(folder / "cert.pem"),
        "key": str(folder / "key.pem"),
    }
    for name, path in found.items():
        Path(path).write_text(made[name])
    return found


def security_with(files: dict[str, str]) -> Security:
    """That certificate for scheduler and workers."""
    roles = {
        f"tls_{role}_{name}": files[name]
        for role in ("scheduler", "worker", "client")
        for name in ("cert", "key")
    }
    return Security(tls_ca_file=files["ca_file"], require_encryption=True, **roles)


def main() -> int:
    """Start the jobs and the batch; returns its exit status."""
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
    # the folder is for its owner only
    with tempfile.TemporaryDirectory(prefix=".liveptv-", dir=Path.cwd()) as folder:
        files = certificates(Path(folder))
        cluster = SLURMCluster(
            job_name="liveptv",
            queue=arguments.queue,
            cores=1,
            processes=1,
            memory=arguments.memory,
            walltime=f"{minutes // 60}:{minutes % 60:02d}:00",
            # a worker that leaves by itself, before SLURM ends its job, hands its recording on; one that is ended
            # counts as lost, and dask gives up a task that has lost four workers
            worker_extra_args=["--lifetime", f"{max(1, minutes - 5)}m", "--lifetime-stagger", "2m"],
            security=security_with(files),
        )
        with cluster:
            if arguments.show:
                print(cluster.job_script())
                return 0
            cluster.scale(jobs=arguments.jobs)
            command = ["liveptv", "batch", arguments.recordings, "--model", arguments.model]
            command += ["--output", arguments.results, "--scheduler", cluster.scheduler_address, *options]
            tls = "DASK_DISTRIBUTED__COMM__TLS"
            given = {f"{tls}__CA_FILE": files["ca_file"]}
            given |= {f"{tls}__CLIENT__{name.upper()}": files[name] for name in ("cert", "key")}
            return subprocess.call(command, env=os.environ | given)


if __name__ == "__main__":
    sys.exit(main())
