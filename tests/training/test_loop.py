"""The loop: the same arithmetic however a run is split, stopped or resumed; damage and nonsense refused by name."""

import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cfx.core.cohort import Cohort, subject_names
from cfx.core.errors import CfxError, CfxWarning, CheckpointError, InputError
from cfx.data.lazy import LazyCohort
from cfx.models import load, load_network, read_manifest
from cfx.runtime.lock import alone
from cfx.training import train
from cfx.training.loop import Trainer, _cohorts
from tests.training.toys import NETWORKS, OBJECTIVES, toy_cohort, toy_config

HERE = Path(__file__).parent


def run(launcher, out, kill_after=None, **overrides):
    """The toy run in another process."""
    arguments = [*launcher, str(HERE / "runner.py"), str(out), json.dumps(overrides)]
    arguments += ["--kill-after", str(kill_after)] if kill_after is not None else []
    environment = os.environ | {"PYTHONPATH": str(HERE.parent.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=240)


def weights(out):
    return load_file(Path(out) / "checkpoint" / "model.safetensors")


def state(out, step):
    files = sorted((Path(out) / "state" / f"step-{step}").glob("*.safetensors"))
    return {f"{file.stem}.{k}": v for file in files for k, v in load_file(file).items()}


def gap(a, b):
    assert a.keys() == b.keys()
    return max(float((a[k].double() - b[k].double()).abs().max()) for k in a)


def test_two_processes_are_one(tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = run(launcher, tmp_path / "two", accumulate=2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["done", "done"]
    train(toy_config(tmp_path / "one"), toy_cohort())
    assert gap(state(tmp_path / "one", 20), state(tmp_path / "two", 20)) < 1e-4
    assert gap(weights(tmp_path / "one"), weights(tmp_path / "two")) < 1e-4
    moved = load_file(tmp_path / "one" / "checkpoint" / "model.safetensors")["out.weight"]
    assert moved.abs().max() > 1e-3  # the output layer starts at zero: training did happen
    assert read_manifest(tmp_path / "two" / "checkpoint").provenance["processes"] == 2


def test_kill_in_mid_epoch_and_resume_is_the_uninterrupted_run_bit_for_bit(tmp_path):
    killed = run([sys.executable], tmp_path / "killed", kill_after=11, save_every=6)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "checkpoint").exists()
    assert [p.name for p in (tmp_path / "killed" / "state").iterdir()] == ["step-6"]
    train(toy_config(tmp_path / "killed", save_every=6), toy_cohort())
    train(toy_config(tmp_path / "whole", save_every=6), toy_cohort())
    whole = state(tmp_path / "whole", 20)
    assert any(k.startswith("ema.") for k in whole)
    assert any("optimizer.0.exp_avg" in k for k in whole)
    assert gap(state(tmp_path / "killed", 20), whole) == 0
    assert gap(weights(tmp_path / "killed"), weights(tmp_path / "whole")) == 0
    assert len(list((tmp_path / "whole" / "state").iterdir())) == 2  # only the newest are kept


@pytest.mark.parametrize("kind", sorted(NETWORKS.keys() - {"latent"}))
def test_parts_of_a_batch_are_the_batch(tmp_path, kind):
    train(toy_config(tmp_path / "1", kind, steps=6), toy_cohort())
    train(toy_config(tmp_path / "4", kind, steps=6, accumulate=4), toy_cohort())
    assert gap(weights(tmp_path / "1"), weights(tmp_path / "4")) < 1e-5


def test_another_seed_is_another_run(tmp_path):
    train(toy_config(tmp_path / "5", "classifier", steps=3), toy_cohort())
    train(toy_config(tmp_path / "6", "classifier", steps=3, seed=6), toy_cohort())
    assert gap(weights(tmp_path / "5"), weights(tmp_path / "6")) > 1e-2


@pytest.mark.parametrize("space", [(8, 8), (8, 8, 8)])
def test_a_classifier_learns_and_ships_what_it_learned(tmp_path, space):
    cohort = toy_cohort(40, space)
    result = train(toy_config(tmp_path, "classifier", steps=40, optimizer={"lr": 1e-2, "warmup": 0}), cohort)
    assert result.status == "done"
    assert result.figures["accuracy"] == result.figures["auroc"] == 1
    classifier = load(result.checkpoint)
    assert torch.equal(classifier(cohort.x).argmax(1), cohort.y)
    manifest = read_manifest(result.checkpoint)
    assert manifest.classes == ("dark", "bright")
    assert manifest.provenance["figures"] == result.figures
    assert manifest.provenance["config"]["steps"] == 40


def test_a_volume_denoiser_learns(tmp_path):
    cohort = toy_cohort(16, (8, 8, 8))
    steps = {"steps": 40, "optimizer": {"lr": 1e-2, "warmup": 0}}
    first = train(toy_config(tmp_path / "a", steps=1, optimizer={"lr": 1e-9}), cohort).figures["loss"]
    result = train(toy_config(tmp_path / "b", **steps), cohort)
    assert result.figures["loss"] < 0.7 * first
    denoiser = load(result.checkpoint)
    assert (denoiser.classes, denoiser.shape) == (2, (1, 8, 8, 8))


def test_adversarial_autoencoder_resumes_with_both_players(tmp_path):
    objective = {"kind": "vae", "adversarial_weight": 0.1, "adversarial_start": 2, "kl_weight": 0.1}
    more = {"objective": objective, "save_every": 4}
    killed = run([sys.executable], tmp_path / "killed", kill_after=6, kind="vae", steps=8, **more)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    train(toy_config(tmp_path / "killed", "vae", steps=8, **more), toy_cohort())
    train(toy_config(tmp_path / "whole", "vae", steps=8, **more), toy_cohort())
    whole = state(tmp_path / "whole", 8)
    assert any(k.startswith("critic.network") for k in whole)
    assert gap(state(tmp_path / "killed", 8), whole) == 0


def test_bf16_stays_near_full_precision(tmp_path):
    train(toy_config(tmp_path / "no", "classifier", steps=5), toy_cohort())
    train(toy_config(tmp_path / "bf16", "classifier", steps=5, precision="bf16"), toy_cohort())
    assert 0 < gap(weights(tmp_path / "no"), weights(tmp_path / "bf16")) < 0.02


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU can do fp16")
def test_fp16_without_a_gpu_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="precision 'fp16'"):
        train(toy_config(tmp_path, "classifier", precision="fp16"), toy_cohort())


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_state_is_refused_by_name(tmp_path, damage):
    train(toy_config(tmp_path, "classifier", steps=2), toy_cohort())
    path = tmp_path / "state" / "step-2" / "main.optimizer.safetensors"
    data = bytearray(path.read_bytes())
    data[-9] ^= 4
    path.write_bytes(data if damage == "flip" else data[:-5])
    if damage == "remove":
        path.unlink()
    with pytest.raises(CheckpointError, match=r"step-2/main\.optimizer\.safetensors: (damaged|missing)"):
        train(toy_config(tmp_path, "classifier", steps=2), toy_cohort())


def test_a_damaged_state_is_stepped_over_to_the_whole_one_before_it(tmp_path):
    """Also a manifest that lies; the log has each step once, whatever was done twice or cut off in mid-line."""
    settings = {"steps": 3, "save_every": 1, "log_every": 1}
    train(toy_config(tmp_path / "a", "classifier", **settings), toy_cohort())
    wanted, log = weights(tmp_path / "a"), tmp_path / "a" / "log.jsonl"
    path = tmp_path / "a" / "state" / "step-3" / "state.json"
    path.write_text(path.read_text().replace('"step": 3', '"step": 4'))
    log.write_text(log.read_text() + '{"step": 9, "lo')
    with pytest.warns(CfxWarning, match=r"step-3/state\.json: damaged; .*; going on from .*step-2"):
        assert train(toy_config(tmp_path / "a", "classifier", **settings), toy_cohort()).step == 3
    assert gap(weights(tmp_path / "a"), wanted) == 0
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [entry["step"] for entry in entries if "loss" in entry] == [1, 2, 3]
    assert not list((tmp_path / "a" / "state").glob(".*"))


def test_resuming_under_another_configuration_is_refused_by_key(tmp_path):
    train(toy_config(tmp_path, "classifier", steps=2), toy_cohort())
    with pytest.raises(CheckpointError, match=r"batch_size: saved 8, asked 4"):
        train(toy_config(tmp_path, "classifier", steps=2, batch_size=4), toy_cohort())


def test_a_finished_run_may_go_on_when_its_rate_is_constant(tmp_path):
    optimizer = {"lr": 1e-3, "warmup": 0, "cosine": False}
    train(toy_config(tmp_path / "a", "classifier", steps=3, optimizer=optimizer), toy_cohort())
    longer = train(toy_config(tmp_path / "a", "classifier", steps=6, optimizer=optimizer), toy_cohort())
    train(toy_config(tmp_path / "b", "classifier", steps=6, optimizer=optimizer), toy_cohort())
    assert longer.step == 6
    assert gap(weights(tmp_path / "a"), weights(tmp_path / "b")) == 0


def test_a_signal_saves_and_the_next_run_goes_on(tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGINT)  # ignored, where the tests themselves run in the background
    whole = train(toy_config(tmp_path / "whole", "classifier", steps=6), toy_cohort())
    step = Trainer._step

    def interrupted(self):
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self)

    monkeypatch.setattr(Trainer, "_step", interrupted)
    stopped = train(toy_config(tmp_path / "cut", "classifier", steps=6), toy_cohort())
    assert (stopped.status, stopped.step, stopped.checkpoint) == ("interrupted", 4, None)
    monkeypatch.setattr(Trainer, "_step", step)
    assert train(toy_config(tmp_path / "cut", "classifier", steps=6), toy_cohort()).figures == whole.figures
    assert gap(weights(tmp_path / "cut"), weights(tmp_path / "whole")) == 0
    assert signal.getsignal(signal.SIGINT) is before


def test_a_launcher_that_is_stopped_loses_no_step(tmp_path):
    """The launcher hands SIGTERM to its workers twice; both stop after the same step, and it is saved."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    overrides = json.dumps({"steps": 100_000, "save_every": 100_000, "log_every": 1})
    environment = os.environ | {"PYTHONPATH": str(HERE.parent.parent), "OMP_NUM_THREADS": "1"}
    command = [*launcher, str(HERE / "runner.py"), str(tmp_path / "run"), overrides]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        log, end = tmp_path / "run" / "log.jsonl", monotonic() + 120
        while not log.exists() and monotonic() < end:
            sleep(0.1)
        process.terminate()
        said = process.communicate(timeout=60)[1].decode()
    (saved,) = (tmp_path / "run" / "state").iterdir()
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert saved.name == f"step-{steps[-1]}", said[-2000:]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_that_is_repeated_later_acts_at_once(tmp_path, monkeypatch, number):
    usual = {n: signal.signal(n, signal.default_int_handler) for n in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr("cfx.training.loop._ONE_REQUEST", 0.2)

    def stuck(self):
        for pause in (0.0, 0.0, 0.3):
            sleep(pause)
            signal.raise_signal(number)
        raise AssertionError("still here")

    monkeypatch.setattr(Trainer, "_step", stuck)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(toy_config(tmp_path, "classifier", steps=6), toy_cohort())
    finally:
        for n, handler in usual.items():
            signal.signal(n, handler)


@pytest.mark.parametrize("other", ["images", "labels", "rows"])
def test_a_state_is_not_resumed_with_other_data(tmp_path, other):
    config, images = toy_config(tmp_path, "classifier", steps=6), toy_cohort()
    train(config, images)
    images = {
        "images": images.replace(x=images.x.roll(1, -1)),
        "labels": images.replace(y=images.y.roll(1)),
        "rows": images[1:],
    }[other]
    with pytest.raises(CheckpointError, match="was made of other contents of data"):
        train(config, images)
    assert train(config, toy_cohort()).step == 6


def test_a_state_is_not_resumed_with_another_network_at_the_same_path(tmp_path):
    for seed, path in enumerate(("named", "other")):
        train(toy_config(tmp_path / path, "classifier", steps=2, seed=seed), toy_cohort())
    objective = dict(OBJECTIVES["vae"]) | {"perceptual": str(tmp_path / "named/checkpoint"), "perceptual_weight": 1.0}
    config = toy_config(tmp_path / "vae", "vae", steps=2, objective=objective)
    train(config, toy_cohort())
    (tmp_path / "named").rename(tmp_path / "kept")
    (tmp_path / "other").rename(tmp_path / "named")
    with pytest.raises(CheckpointError, match=r"other contents of objective\.features"):
        train(config, toy_cohort())


def test_a_second_run_in_the_folder_is_refused(tmp_path):
    with alone(tmp_path / "out"), pytest.raises(CfxError, match="another run is at work in"):
        train(toy_config(tmp_path / "out", "classifier", steps=6), toy_cohort())


def test_a_nan_loss_is_an_error_that_keeps_the_last_state(tmp_path, monkeypatch):
    step = Trainer._step

    def poisoned(self):
        if self.step == 5:
            next(self.players["main"].bare.parameters()).data.fill_(float("nan"))
        return step(self)

    monkeypatch.setattr(Trainer, "_step", poisoned)
    with pytest.raises(CfxError, match=r"step 5: the loss of player main is nan; last state kept: .*step-4"):
        train(toy_config(tmp_path, "classifier", save_every=4), toy_cohort())
    assert all(v.isfinite().all() for v in state(tmp_path, 4).values())


def test_cohorts_that_do_not_suit_are_refused(tmp_path):
    cohort = toy_cohort()
    one_class = Cohort(x=cohort.x, y=torch.zeros_like(cohort.y))
    with pytest.raises(InputError, match=r"at least two classes to train a classifier, got only \[0\]"):
        train(toy_config(tmp_path, "classifier"), one_class)
    with pytest.raises(InputError, match=r"cohort\.y: expected one class label a row, got none"):
        train(toy_config(tmp_path), Cohort(x=cohort.x))
    with pytest.raises(InputError, match=r"expected classes 0 \.\. 1, got 0 \.\. 2"):
        train(toy_config(tmp_path), Cohort(x=cohort.x, y=torch.arange(22) % 3))
    with pytest.raises(InputError, match="objective classifier expects a classifier"):
        train(toy_config(tmp_path, "classifier", network={"name": "unet"}), cohort)
    with pytest.raises(InputError, match="batch_size: expected a multiple of 1 processes x accumulate 3"):
        train(toy_config(tmp_path, batch_size=9, accumulate=3).model_copy(update={"batch_size": 8}), cohort)


def test_one_logit_and_several_labels(tmp_path):
    cohort = toy_cohort(40)
    fast = {"steps": 40, "optimizer": {"lr": 1e-2, "warmup": 0}}
    one = {"objective": {"kind": "classifier", "one_logit": True}}
    result = train(toy_config(tmp_path / "one", "classifier", **one, **fast), cohort)
    assert result.figures["accuracy"] == 1
    assert torch.equal(load(result.checkpoint)(cohort.x)[:, 0] > 0, cohort.y == 1)
    labels = torch.stack([cohort.y, 1 - cohort.y], 1).float()
    many = {"objective": {"kind": "classifier", "multilabel": True}}
    result = train(toy_config(tmp_path / "many", "classifier", **many, **fast), Cohort(x=cohort.x, y=labels))
    assert torch.equal(load(result.checkpoint)(cohort.x) > 0, labels.bool())
    assert read_manifest(result.checkpoint).multilabel


def test_the_card_says_what_the_configuration_says(tmp_path):
    result = train(toy_config(tmp_path, "classifier", steps=1, card="Tells dark from bright."), toy_cohort())
    card = (result.checkpoint / "README.md").read_text()
    assert card.count("# toy\n\nTells dark from bright.") == 1
    assert "- steps: 1\n" in card
    assert "- accuracy: " in card


def test_autoencoder_learns_from_a_named_classifiers_features(tmp_path):
    cohort = toy_cohort(40)
    teacher = train(toy_config(tmp_path / "c", "classifier", steps=5), cohort).checkpoint
    objective = {"kind": "vae", "perceptual": str(teacher), "perceptual_weight": 0.5, "kl_weight": 1e-4}
    fast = {"objective": objective, "steps": 60, "optimizer": {"lr": 1e-2, "warmup": 0}}
    before = train(toy_config(tmp_path / "a", "vae", **fast | {"steps": 1}), cohort).figures
    after = train(toy_config(tmp_path / "b", "vae", **fast), cohort).figures
    assert after["l1"] < 0.5 * before["l1"]
    assert after["feature_distance"] < 0.5 * before["feature_distance"]
    last = json.loads((tmp_path / "b" / "log.jsonl").read_text().splitlines()[-2])
    assert last["loss"] == pytest.approx(last["l1"] + 0.5 * last["perceptual"] + 1e-4 * last["kl"] / 64, rel=1e-4)


@pytest.mark.parametrize("kind", ["classifier", "diffusion", "vae", "features"])
def test_a_lazy_cohort_trains_as_one_in_memory(tmp_path, kind):
    cohort, asked = toy_cohort(), []

    def read(rows):
        asked.append(rows.stop - rows.start)
        return {"x": cohort.x[rows]}

    lazy = LazyCohort(read, cohort.ids, cohort.y, classes=cohort.classes, block=4, cache=2**12)
    settings = {"steps": 4, "validation": 0.25, "batch_size": 8}
    train(toy_config(tmp_path / "memory", kind, **settings), cohort)
    result = train(toy_config(tmp_path / "lazy", kind, **settings), lazy)
    assert gap(weights(tmp_path / "memory"), weights(tmp_path / "lazy")) == 0
    assert result.figures
    assert max(asked) == 4  # never more than a block at a time


def test_lazy_data_of_a_configuration(tmp_path):
    cohort = toy_cohort()
    np.savez(tmp_path / "toy.npz", train_images=cohort.x[:, 0].numpy(), train_labels=cohort.y.numpy())
    for lazy in (True, False):
        data = {"kind": "npz", "path": str(tmp_path / "toy.npz"), "value_range": [-1, 1], "lazy": lazy}
        train(toy_config(tmp_path / str(lazy), "classifier", steps=2, data=data, validation=data))
    assert gap(weights(tmp_path / "True"), weights(tmp_path / "False")) == 0


def objective_of(kind, folder):
    """The toy objective; of codes, with an autoencoder trained for it."""
    if kind != "latent":
        return OBJECTIVES[kind]
    return OBJECTIVES[kind] | {"autoencoder": str(train(toy_config(folder, "vae", steps=1), toy_cohort()).checkpoint)}


@pytest.mark.parametrize("kind", [kind for kind in NETWORKS if kind != "duq"])  # whose centroids move at once
def test_a_run_starts_from_a_checkpoint_of_its_kind(tmp_path, kind):
    still = {"objective": objective_of(kind, tmp_path / "vae"), "optimizer": {"lr": 1e-12, "warmup": 0}, "ema": None}
    first = train(toy_config(tmp_path / "a", kind, steps=1, **still | {"seed": 1}), toy_cohort()).checkpoint
    train(toy_config(tmp_path / "b", kind, steps=1, init=str(first), **still), toy_cohort())
    train(toy_config(tmp_path / "c", kind, steps=1, **still), toy_cohort())
    assert gap(weights(tmp_path / "a"), weights(tmp_path / "b")) < 1e-9
    assert gap(weights(tmp_path / "a"), weights(tmp_path / "c")) > 1e-2
    assert read_manifest(first).kind == read_manifest(tmp_path / "b/checkpoint").kind


def test_the_averaged_network_ships_the_running_statistics(tmp_path):
    """Batch normalisation: what is evaluated is what is shipped, and its rows do not see each other."""
    cohort = toy_cohort(40)
    network = {"name": "cnn", "channels": [8, 8], "norm": "batch", "activation": "relu", "dropout": 0.1}
    config = toy_config(tmp_path, "classifier", network=network, steps=40, optimizer={"lr": 1e-2, "warmup": 0})
    result = train(config, cohort)
    assert result.figures["accuracy"] == 1
    kept, last = weights(tmp_path), state(tmp_path, 40)
    running = [k for k in kept if "running" in k]
    assert running
    assert all(torch.equal(kept[k], last[f"main.network.{k}"]) for k in running)
    classifier = load(result.checkpoint)
    assert torch.equal(classifier(cohort.x).argmax(1), cohort.y)
    assert torch.allclose(classifier(cohort.x)[3:4], classifier(cohort.x[3:4]), atol=1e-5)


def written(folder, name, labels, more=None):
    """A table of as many tiny images as labels; `more` are columns of its own."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(exist_ok=True)
    more = more or {}
    lines = [",".join(["filename", "label", *more])]
    for i, label in enumerate(labels):
        file = f"{name}{i}.png"
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / "images" / file)
        lines.append(",".join([file, label, *(str(column[i]) for column in more.values())]))
    (folder / f"{name}.csv").write_text("\n".join(lines))
    return {"kind": "png", "path": str(folder / "images"), "table": str(folder / f"{name}.csv")}


def cohorts(config):
    """The rows that a run trains on and holds out."""
    return _cohorts(config, None, None)


@pytest.mark.parametrize("lazy", [False, True])
def test_validation_is_numbered_by_the_classes_of_training(tmp_path, lazy):
    data = written(tmp_path, "train", ["AD", "CN", "MCI"] * 4) | {"lazy": lazy}
    other = written(tmp_path, "val", ["MCI", "CN", "CN"]) | {"lazy": lazy}
    config = toy_config(tmp_path, "classifier", data=data, validation=other)
    rows, held = cohorts(config)
    assert list(rows.classes) == list(held.classes) == ["AD", "CN", "MCI"]
    assert held.y.tolist() == held[:].y.tolist() == [2, 1, 1]
    swapped = toy_config(tmp_path, "classifier", data=data, validation=other | {"classes": ["MCI", "CN"]})
    assert cohorts(swapped)[1].y.tolist() == [2, 1, 1]


@pytest.mark.parametrize("kind", ["classifier", "diffusion"])
def test_a_class_of_the_validation_alone_is_refused_by_name(tmp_path, kind):
    data, other = written(tmp_path, "train", ["AD", "CN"] * 4), written(tmp_path, "val", ["CN", "MCI"])
    with pytest.raises(InputError, match=r"validation: labels MCI are not among the classes \('AD', 'CN'\) of data"):
        train(toy_config(tmp_path / "run", kind, data=data, validation=other))


def test_numbers_of_the_validation_alone_are_refused(tmp_path):
    data, other = written(tmp_path, "train", ["0", "1"] * 4), written(tmp_path, "val", ["0", "2"])
    with pytest.raises(InputError, match=r"of classes \[2\] there are rows on one side only. Training: 0 4"):
        train(toy_config(tmp_path / "run", "classifier", data=data, validation=other))


@pytest.mark.parametrize("whose", [[f"sub-{i // 4:02}" for i in range(40)], [100 + i // 4 for i in range(40)]])
@pytest.mark.parametrize("kind", ["classifier", "vae"])
@pytest.mark.parametrize("column", ["subject", "participant_id", "who"])
def test_whole_subjects_are_held_out(tmp_path, whose, kind, column):
    labels = ["AD" if i // 4 % 2 else "CN" for i in range(40)]
    data = written(tmp_path, "train", labels, {column: whose}) | ({"subject": "who"} if column == "who" else {})
    rows, held = cohorts(toy_config(tmp_path, kind, data=data, validation=0.1))
    assert not set(subject_names(rows)) & set(subject_names(held))
    assert len(rows) + len(held) == 40
    assert len(held) in (4, 8)
    assert kind == "vae" or set(held.y.tolist()) == {0, 1}


@pytest.mark.parametrize("rare", [1, 2])
@pytest.mark.parametrize("share", [0.1, 0.4])
def test_every_class_is_on_both_sides_or_nothing_is_trained(tmp_path, rare, share):
    data = written(tmp_path, "train", ["0"] * 20 + ["1"] * 20 + ["2"] * rare)
    config = toy_config(tmp_path / "run", "classifier", data=data, validation=share, steps=1)
    if rare > 1:
        rows, held = cohorts(config)
        assert set(rows.y.tolist()) == set(held.y.tolist()) == {0, 1, 2}
        return
    with pytest.raises(InputError, match=r"classes \[2\] .* one side only; .*: 0 1\d images.*, 2 1 images of 1 subj"):
        train(config)
    assert not (tmp_path / "run").exists()
    rows, held = cohorts(toy_config(tmp_path, "vae", data=data, validation=share))
    assert 2 in rows.y.tolist()


@pytest.mark.parametrize("labels", [(1, 2), (10, 20190), (0, 2)])
@pytest.mark.parametrize("kind", ["csv", "folder", "npz"])
def test_numbers_with_gaps_are_no_classes_until_they_are_named(tmp_path, labels, kind):
    texts = [str(labels[i % 2]) for i in range(8)]
    if kind == "npz":
        np.savez(tmp_path / "a.npz", train_images=np.eye(8, dtype=np.uint8)[None].repeat(8, 0) * 255,
                 train_labels=np.array(texts, dtype=np.int64))  # fmt: skip
        data = {"kind": "npz", "path": str(tmp_path / "a.npz")}
    else:
        data = written(tmp_path, "a", texts)
    if kind == "folder":
        for i, text in enumerate(texts):
            (tmp_path / "images" / text).mkdir(exist_ok=True)
            (tmp_path / "images" / f"a{i}.png").rename(tmp_path / "images" / text / f"{i}.png")
        data = {"kind": "png", "path": str(tmp_path / "images")}
    run = {"validation": 0.0, "steps": 1}
    said = pytest.warns(CfxWarning, match="no image has label 0") if labels[0] else nullcontext()
    with said, pytest.raises(InputError, match=r"cohort.y: no image of classes .* name them by `classes`"):
        train(toy_config(tmp_path / "run", "classifier", data=data, **run))
    named = data | {"classes": [str(label) for label in labels]}
    train(toy_config(tmp_path / "run", "classifier", data=named, **run))
    assert load_network(tmp_path / "run/checkpoint").state_dict()["head.weight"].shape[0] == 2


@pytest.mark.parametrize("lazy", [False, True])
def test_names_of_the_validation_beside_numbers_are_numbered_by_the_user_alone(tmp_path, lazy):
    data = written(tmp_path, "train", ["0", "1", "2"] * 4) | {"lazy": lazy}
    other = written(tmp_path, "val", ["CN", "MCI"] * 2)
    with pytest.raises(InputError, match=r"validation: expected labels that are numbers, as those of data, got names"):
        cohorts(toy_config(tmp_path, "classifier", data=data, validation=other))
    named = other | {"classes": ["AD", "CN", "MCI"]}
    _, held = cohorts(toy_config(tmp_path, "classifier", data=data, validation=named))
    assert held.y.tolist() == [1, 2] * 2
    numbers = written(tmp_path, "numbers", ["1", "2", "0", "1"])
    assert cohorts(toy_config(tmp_path, "classifier", data=data, validation=numbers))[1].y.tolist() == [1, 2, 0, 1]
