"""Who performs the tasks of a batch: processes of this computer, or a cluster of dask.distributed."""
