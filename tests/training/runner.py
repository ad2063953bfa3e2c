"""A small training run in its own process: `runner.py OUT JSON [--kill-after STEP]`, alone or under torchrun."""

import json
import os
import signal
import sys

from toys import toy_cohort, toy_config

from cfx.core.errors import CfxError
from cfx.runtime.shares import leave
from cfx.training import train
from cfx.training.loop import Trainer


def kill_after(step):
    """Die as a preempted machine does, right after a step and before anything else is written."""
    advance = Trainer._step

    def dying(self):
        scores = advance(self)
        if self.step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return scores

    Trainer._step = dying


if __name__ == "__main__":
    out, overrides, *rest = sys.argv[1:]
    if rest:
        kill_after(int(rest[1]))
    try:
        print(train(toy_config(out, **json.loads(overrides)), toy_cohort()).status + "\n", end="", flush=True)
        leave()
    except CfxError as error:
        sys.exit(f"{type(error).__name__}: {error}")
