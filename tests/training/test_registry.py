"""An objective and a kind of checkpoint are one file and their lines in the registries; nothing else is edited."""

import subprocess
import sys

from cfx.models.kinds import KINDS
from cfx.training.registry import OBJECTIVES, objective_configs

SCRIPT = """
import sys, torch
from tests.training import toy_door
toy_door.register()  # as the registries' own lines: before anything reads them
from cfx.cli import app
from cfx.models import load, read_manifest
from tests.training.toys import toy_cohort
import numpy as np
cohort, out = toy_cohort(24), sys.argv[1]
np.savez(out + "/toy.npz", train_images=cohort.x[:, 0].numpy())
text = '''
name: toy
out: {0}/{1}
data: {{kind: npz, path: {0}/toy.npz, labelled: false, value_range: [-1, 1]}}
network: {{name: mean-image, size: 8}}
objective: {{kind: mean, of: toys}}
optimizer: {{lr: 0.1, warmup: 0}}
batch_size: 8
steps: {2}
validation: 0.0
ema: null
'''
def train(name, steps, more=""):
    open(f"{out}/{name}.yaml", "w").write(text.format(out, name, steps) + more)
    app(["train", f"{out}/{name}.yaml"], standalone_mode=False)
    return load(f"{out}/{name}/checkpoint")
model = train("first", 60)
assert type(model) is toy_door.Named and model.of == "toys"
assert (model.network.image - cohort.x.mean(0)).abs().max() < 0.05
assert read_manifest(f"{out}/first/checkpoint").kind == "mean"
again = train("second", 1, f"init: {out}/first/checkpoint")
assert (again.network.image - model.network.image).abs().max() <= 0.11  # one step from there, not from zero
assert "The mean of some images." in open(f"{out}/first/checkpoint/README.md").read()
"""


def test_a_toy_walks_in_by_its_lines_alone(root, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], cwd=root, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_every_objective_trains_a_kind_that_exists():
    for name, config in zip(OBJECTIVES, objective_configs(), strict=True):
        assert config.model_fields["kind"].annotation.__args__ == (name,)
        assert config.trains in KINDS


def test_configurations_import_no_network_library():
    code = "import sys, cfx.training.config\nprint(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"monai", "diffusers", "accelerate"}.isdisjoint(done.stdout.split())
