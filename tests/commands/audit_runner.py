"""`cfx audit CONFIG` as torchrun starts it; every process writes down which images it showed to which network."""

import json
import os
import sys
from collections import Counter

import torch
from torch import Tensor

from cfx.cli import app
from cfx.models.judge import Judge

asked: Counter[str] = Counter()
logits = Judge.logits


def counted(self: Judge, x: Tensor) -> Tensor:
    """The logits, with their images counted by network and by whether a gradient is wanted."""
    asked[f"{self.name} {'gradient' if torch.is_grad_enabled() else 'score'}"] += len(x)
    return logits(self, x)


if __name__ == "__main__":
    config, out = sys.argv[1:]
    Judge.logits = counted
    app(["audit", config], standalone_mode=False)
    with open(f"{out}/asked-{os.environ['RANK']}.json", "w") as file:
        json.dump(asked, file)
