"""Every mutation of every format."""

import mutated_folder
import mutated_hdf5
import mutated_imagej
import mutated_micromanager
import mutated_ome
import mutated_tables
import mutated_tiff
import mutated_zarr

ALL = [
    *mutated_tiff.cases.all,
    *mutated_ome.cases.all,
    *mutated_imagej.cases.all,
    *mutated_micromanager.cases.all,
    *mutated_micromanager.stacks.all,
    *mutated_micromanager.ndtiff.all,
    *mutated_zarr.all_cases,
    *mutated_hdf5.cases.all,
    *mutated_folder.cases.all,
    *mutated_tables.all_cases,
]
