"""The verb writes the checkpoint, and says what."""

import yaml
from typer.testing import CliRunner

from cfx.cli import app
from cfx.models import read_manifest
from tests.models.test_importing import described


def test_a_configuration_becomes_a_checkpoint(tmp_path):
    spec = described("monai-diffusion-unet", tmp_path / "weights.pt")
    values = {"name": "unet", "source": spec.model_dump(mode="json", exclude_none=True), "out": str(tmp_path / "net")}
    (tmp_path / "import.yaml").write_text(yaml.safe_dump(values))
    done = CliRunner().invoke(app, ["import", str(tmp_path / "import.yaml")])
    assert done.exit_code == 0, done.output
    assert "a denoiser (monai-diffusion-unet)" in done.output
    assert read_manifest(tmp_path / "net").schedule is not None


def test_a_mistake_is_one_line(tmp_path):
    (tmp_path / "import.yaml").write_text("{name: a, source: {path: nowhere, network: cnn}}")
    done = CliRunner().invoke(app, ["import", str(tmp_path / "import.yaml")])
    assert done.exit_code == 2
    assert done.stderr.startswith("error: source.path: expected a state dict")
