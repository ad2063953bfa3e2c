"""A cohort larger than memory should be: `.venv/bin/python docs/devdocs/large.py [folder]`, 20 minutes, 6 GB disk.

20,000 images of 128 x 128 pixels (float32, 1.3 GB) are written as zarr and as npz. A process of its own trains a tiny
classifier on each for 50 steps and reports its largest resident memory; the time to read a row, in random order and
none of them twice, is compared with that of a cohort of 1,000. Then `cfx explain`, in a process of its own, explains
the zarr with that classifier and the cheapest method; its time a row is compared with that of 1,000.
"""

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
import zarr

from cfx.commands.explain import ExplainConfig, explain_run
from cfx.core.random import normal, permutation
from cfx.data import NpzConfig, ZarrConfig, open_cohort
from cfx.training import check_config, train

SIZE, ROWS, FEW, STEPS = 128, 20_000, 1_000, 50
PART = 500  # rows made at a time


def images(first: int, rows: int) -> np.ndarray:
    """Noise in [-1, 1], `(rows, size, size)`, brighter in odd rows."""
    row = torch.arange(first, first + rows)
    x = 0.2 * normal((SIZE, SIZE), seed=0, row=row, stream=0) + 0.1 * (row % 2).view(-1, 1, 1)
    return x.clamp(-1, 1).numpy()


def write(folder: Path, rows: int) -> None:
    """The same rows as `<rows>.zarr` and `<rows>.npz`."""
    labels, shape = np.arange(rows) % 2, (rows, SIZE, SIZE)
    group = zarr.create_group(folder / f"{rows}.zarr")
    group.create_array("labels", data=labels)
    one = (1, 1, SIZE, SIZE)
    array = group.create_array("images", shape=(rows, *one[1:]), dtype="f4", chunks=one, shards=(PART, *one[1:]))
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with zipfile.ZipFile(folder / f"{rows}.npz", "w") as file:
        with file.open("train_labels.npy", "w") as member:
            np.lib.format.write_array(member, labels)
        with file.open("train_images.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)
            for first in range(0, rows, PART):
                x = images(first, PART)
                array[first : first + PART] = x[:, None]
                member.write(x.tobytes())


def source(folder: Path, kind: str, rows: int) -> NpzConfig | ZarrConfig:
    """Those rows, to be read lazily."""
    path = folder / f"{rows}.{kind}"
    if kind == "npz":
        return NpzConfig(path=path, value_range=(-1, 1), lazy=True)
    return ZarrConfig(path=path, labels="labels", value_range=(-1, 1), lazy=True)


def training(folder: Path, kind: str) -> dict[str, float]:
    """Seconds a step, accuracy on held-out rows, and memory of 50 steps, in this process."""
    data = source(folder, kind, ROWS).model_dump()
    values = {
        "name": kind, "out": str(folder / f"run-{kind}"), "data": data, "validation": 0.05, "steps": STEPS,
        "network": {"name": "cnn", "channels": [4, 4]}, "objective": {"kind": "classifier"},
        "ema": None, "optimizer": {"lr": 1e-2, "warmup": 5},
    }  # fmt: skip
    start = perf_counter()
    result = train(check_config(values))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": perf_counter() - start, "accuracy": result.figures["accuracy"], "gigabytes": memory}


def explaining(folder: Path, kind: str, rows: int) -> dict[str, float]:
    """Seconds a row, memory, and the size of the report of `cfx explain` with a naive attack, in this process."""
    data, out = source(folder, kind, rows).model_dump(), folder / f"explain-{rows}"
    config = ExplainConfig.model_validate({
        "name": f"explain-{rows}", "out": str(out), "data": data, "classifier": str(folder / f"run-{kind}/checkpoint"),
        "method": "gradient-attack", "depths": ["boundary"], "batch_size": 50,
    })  # fmt: skip
    start = perf_counter()
    explain_run(config)
    seconds = perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    size = (out / "report.html").stat().st_size / 2**20
    shutil.rmtree(out)
    return {"milliseconds_a_row": 1e3 * seconds / rows, "gigabytes": memory, "report_megabytes": size}


def milliseconds(folder: Path, kind: str, rows: int) -> float:
    """Time to read a row, each of 1,000 at random once."""
    cohort = open_cohort(source(folder, kind, rows))
    order = permutation(rows, seed=1, stream=0)[:FEW]
    _ = cohort.shape
    start = perf_counter()
    for row in order.tolist():
        _ = cohort[[row]]
    return 1e3 * (perf_counter() - start) / FEW


def main(folder: Path) -> None:
    """Write the images and print what reading them takes."""
    for rows in (ROWS, FEW):
        write(folder, rows)
    for kind in ("zarr", "npz"):
        call = [sys.executable, __file__, str(folder), kind]
        told = json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        print(f"{kind}: {STEPS} steps " + ", ".join(f"{key} {value:.3g}" for key, value in told.items()))
        times = [[milliseconds(folder, kind, rows) for rows in (FEW, ROWS)] for _ in range(7)]
        few, many = map(min, zip(*times, strict=True))  # a busy machine only ever adds
        print(f"{kind}: {few:.3g} ms a row of {FEW}, {many:.3g} of {ROWS}: {many / few:.2f} times")
    for rows in (FEW, ROWS):
        call = [sys.executable, __file__, str(folder), "zarr", str(rows)]
        told = json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        print(f"explain {rows}: " + ", ".join(f"{key} {value:.3g}" for key, value in told.items()))


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(json.dumps(explaining(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
    elif len(sys.argv) == 3:
        print(json.dumps(training(Path(sys.argv[1]), sys.argv[2])))
    elif len(sys.argv) == 2:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
