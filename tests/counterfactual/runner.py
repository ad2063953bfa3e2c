"""Explain toys on the processes that torchrun started: `runner.py OUT N ...`; every process saves all rows."""

import sys

from safetensors.torch import save_file
from toys import explain_toys, tensors

from cfx.runtime.processes import make_accelerator
from cfx.runtime.shares import leave

if __name__ == "__main__":
    out, *sizes = sys.argv[1:]
    accelerator = make_accelerator()
    for n in sizes:
        result = explain_toys(int(n), accelerator=accelerator)
        assert result.cohort.ids == tuple(map(str, range(int(n))))
        assert result.cohort.y.equal(explain_toys(int(n)).cohort.y)
        save_file(tensors(result), f"{out}/{n}-{accelerator.process_index}.safetensors")
    leave()
