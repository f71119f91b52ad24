"""Two devices and two workers: equal weights on both, results near those of one, one writer."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from conftest import DENOISER, MODELS, ROOT, VAE, metrics, trained_here

# 309 images, so that a batch is left over. At this learning rate training does not yet amplify the
# differences in the last bits that another order of additions makes.
SMALL = ["--limit", "309", "--epochs", "3", "--learning-rate", "1e-5"]

# Prints the checksums of each weight's copies as fit ends: of the replicas of this process.
REPORT = """
import runpy, sys, zlib, keras, tensorflow as tf
fit = keras.Model.fit
def reporting(model, *arguments, **settings):
    history = fit(model, *arguments, **settings)
    for variable in model.weights:
        copies = getattr(variable.value, "values", None) or [variable.value]
        print("weights", *(zlib.crc32(copy.numpy().tobytes()) for copy in copies))
    return history
keras.Model.fit = reporting
count, script, *arguments = sys.argv[1:]
if int(count) > 1:
    each = tf.config.LogicalDeviceConfiguration()
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [each] * int(count))
    arguments.append("--all-devices")
sys.argv = [script, *arguments]
runpy.run_path(script, run_name="__main__")
"""


def reported(text):
    """Return what REPORT printed: for each weight, the checksums of its copies."""
    return [line.split()[1:] for line in text.splitlines() if line.startswith("weights ")]


@pytest.fixture(scope="module")
def alone(modules, tmp_path_factory):
    """The folders of runs with one device."""
    folders = {script: tmp_path_factory.mktemp("alone") for script in modules}
    for script, folder in folders.items():
        trained_here(modules[script], *SMALL, cwd=folder)
    return folders


def assert_near(script, one, other):
    """All but the order of additions is the same: noise and epsilon come with the batches.

    The losses in training show that: those of other draws of epsilon differ by up to 0.4 nats.
    """
    losses = [
        np.genfromtxt(folder / "history.csv", delimiter=",", names=True)["loss"]
        for folder in (one, other)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=0.02)
    one, other = metrics(one), metrics(other)
    names = [name for name, value in one.items() if isinstance(value, float)]
    tolerance = {DENOISER: 1e-4, VAE: 0.05}[script]
    assert len(names) >= 6
    assert [one[name] for name in names] == pytest.approx(
        [other[name] for name in names], abs=tolerance
    )


def two_devices(script, *words, cwd):
    """Run a script on two devices; return the process."""
    command = [sys.executable, "-c", REPORT, "2", ROOT / script, *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def assert_equal_copies(process):
    """A run on two devices ended well, and each weight has two copies that are the same."""
    assert process.returncode == 0, process.stderr
    copies = reported(process.stdout)
    assert len(copies) > 10 and all(len(set(each)) == 1 and len(each) == 2 for each in copies)


@pytest.mark.parametrize("script", [DENOISER, VAE])
def test_two_devices(script, alone, tmp_path):
    """Of the denoiser's 12 batches some consist of mosaics, with this seed."""
    process = two_devices(script, *SMALL, cwd=tmp_path)
    assert_equal_copies(process)
    assert_near(script, alone[script] / MODELS[script], tmp_path / MODELS[script])


def test_two_devices_with_rgb_images(denoiser, tmp_path):
    """They have another loss than gray ones, and channels in a random order."""
    images = np.random.default_rng(0).integers(0, 256, (120, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "rgb.npz", x_train=images)
    words = ["--data", tmp_path / "rgb.npz", *SMALL, "--batch-size", "16", "--model-dir"]
    trained_here(denoiser, *words, "one", cwd=tmp_path)
    assert_equal_copies(two_devices(DENOISER, *words, "two", cwd=tmp_path))
    assert_near(DENOISER, tmp_path / "one", tmp_path / "two")


@pytest.mark.quick
def test_a_training_batch_is_made_of_mosaics(denoiser):
    """In the runs of SMALL, so that they try a batch of mosaics on two devices."""
    options = denoiser.parse_options(SMALL)
    shares = []
    for step in range(options.epochs * (309 // options.batch_size)):
        seed = denoiser.stateless_seed(options.seed, "train", step)
        mosaic_seed, _, _ = denoiser.tf.unstack(denoiser.tf.random.split(seed, 3))
        shares.append(denoiser.tf.random.stateless_uniform((3,), mosaic_seed)[0])
    assert min(shares) <= denoiser.MOSAIC_SHARE


def test_two_workers(alone, tmp_path, script=VAE):
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        hosts = [f"127.0.0.1:{each.getsockname()[1]}" for each in (one, other)]
    workers = []
    for index in (0, 1):
        task = {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
        folder = tmp_path / str(index)
        folder.mkdir()
        environment = {**os.environ, "TF_CONFIG": json.dumps(task)}
        command = [sys.executable, "-c", REPORT, "1", ROOT / script, *SMALL]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        workers.append(subprocess.Popen(command, cwd=folder, env=environment, **pipes))
    (chief, errors), (other, other_errors) = (each.communicate(timeout=120) for each in workers)
    assert [each.returncode for each in workers] == [0, 0], errors + other_errors
    assert len(reported(chief)) > 10 and reported(chief) == reported(other)
    assert "models go to" in chief and "epoch 1 of" in chief
    assert other.count("\n") == len(reported(other))  # the chief alone reports and writes
    assert not [path for path in (tmp_path / "1").rglob("*") if path.is_file()]
    assert_near(script, alone[script] / MODELS[script], tmp_path / "0" / MODELS[script])
