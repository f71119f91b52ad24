"""The two scripts as modules, and as commands run by a user in a folder of their own."""

# A command takes seconds to import TensorFlow, so most tests call functions in this process. A
# command is for what belongs to one: signals, streams, settings of the user, the exit status.
# What both scripts share is tested with one of them: test_scripts.py compares it line by line.

import contextlib
import fcntl
import functools
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import unittest.mock
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
DENOISER = "StackedDenoisingAutoEncoder.py"
VAE = "VariationalAutoEncoder_tf2.py"
MODELS = {DENOISER: "models/denoiser", VAE: "models/vae"}


def run(script, *arguments, cwd, **environment):
    """Run a script as a command; return what it printed, and its exit status."""
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    environment = {**os.environ, "MPLBACKEND": "", **environment}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def trained(script, *arguments, cwd, **environment):
    """Run a script that has to end well; return the finished process."""
    process = run(script, *arguments, cwd=cwd, **environment)
    assert process.returncode == 0, process.stderr
    return process


def trained_here(module, *arguments, cwd, callbacks=(), plot=False):
    """Call main of a script in this process, in a folder; return what it printed."""
    plot_all = module.plot_all if plot else lambda *_: None
    patch = unittest.mock.patch.object(module, "plot_all", plot_all)
    with contextlib.chdir(cwd), contextlib.redirect_stdout(io.StringIO()) as text, patch:
        module.main(module.parse_options([*map(str, arguments)]), callbacks)
    return text.getvalue()


def mnist(script, limit=None):
    """Return training, validation and test digits, and the labels of the test digits."""
    return script.split_images(script.load_arrays("mnist"), "mnist", limit)


def load_file(script, path, limit=None, suffix=""):
    """Return the splits of a file, as a script makes them."""
    return script.split_images(script.load_arrays(str(path)), str(path), limit, suffix)


def refused(process, *texts):
    """Assert that a command ended with status 2 and one line that holds the texts."""
    assert process.returncode == 2, process.stderr
    assert process.stderr.startswith("error: ") and process.stderr.count("\n") == 1, process.stderr
    assert all(str(text) in process.stderr for text in texts), process.stderr


def metrics(folder):
    """Return metrics.json without what may differ between two equal runs."""
    values = json.loads((folder / "metrics.json").read_text())
    free = ("train_seconds", "resume", "model_dir", "images_dir", "all_devices")
    return {key: values[key] for key in values if key not in free}


def same_end(script, one, other):
    """Assert that two runs left the same weights, history and metrics."""
    import keras

    one, other = one / MODELS[script], other / MODELS[script]
    assert metrics(one) == metrics(other)
    assert (one / "history.csv").read_bytes() == (other / "history.csv").read_bytes()
    for path in one.glob("*.keras"):
        models = [keras.models.load_model(folder / path.name) for folder in (one, other)]
        for first, second in zip(*(model.get_weights() for model in models), strict=True):
            np.testing.assert_array_equal(first, second)


def load(script):
    """Return a script as a module."""
    spec = importlib.util.spec_from_file_location(Path(script).stem, ROOT / script)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)
    return module


LONGEST = ("test_interruptions", "test_learning", "test_distribution", "test_scripts")


def pytest_collection_modifyitems(items):
    """Start with the files that take longest, or a worker would be left with one at the end."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Keep what the import of a script has set here from the commands of tests and fixtures."""
    os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)


@pytest.fixture(scope="session")
def denoiser():
    return load(DENOISER)


@pytest.fixture(scope="session")
def vae():
    return load(VAE)


@pytest.fixture(scope="session")
def modules(denoiser, vae):
    return {DENOISER: denoiser, VAE: vae}


@pytest.fixture(scope="session", params=[DENOISER, VAE])
def finished_run(request, tmp_path_factory):
    """A short run of each script: (script, folder, the finished process)."""
    folder = tmp_path_factory.mktemp("run")
    return request.param, folder, trained(request.param, "--limit", 500, "--epochs", 2, cwd=folder)


def made_once(make):
    """Let the first worker of xdist that needs a folder make it; each gets a copy of its own."""

    @functools.wraps(make)
    def copy(tmp_path_factory):
        own = tmp_path_factory.getbasetemp()
        common = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
        original = common / f"{make.__name__}-original"
        with (common / f"{make.__name__}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not original.exists():
                shutil.copytree(make(tmp_path_factory), original)
        return shutil.copytree(original, own / f"{make.__name__}-copy")

    return copy


@pytest.fixture(scope="session")
@made_once
def learned(tmp_path_factory):
    """The folder of a run of each script that is long enough to have learned something."""
    folder = tmp_path_factory.mktemp("learned")
    few_samples = ["--importance-samples", 5]
    for script, *words in ((DENOISER, "--epochs", 2), (VAE, "--epochs", 5, *few_samples)):
        trained(script, "--limit", 10000, "--seed", 1, *words, cwd=folder)
    return folder


@pytest.fixture(scope="session")
def models(learned):
    return learned / "models"


@pytest.fixture(scope="session")
def colour(tmp_path_factory):
    """A folder with own.npz, pictures of it, and models: RGB, oblong, 16 dimensions, no x_test."""
    place = tmp_path_factory.mktemp("colour é")
    draw = np.random.default_rng(0).integers
    images = np.empty((60, 64, 48, 3), np.uint8)
    for image in images:  # a dark and a bright half, of nearly the same colours each time
        image[:32] = draw(0, 40, 3)
        image[32:] = draw(216, 256, 3)
    np.savez(place / "own.npz", x_train=images)
    (place / "photos").mkdir()
    for index in range(4):
        Image.fromarray(images[index]).save(place / "photos" / f"{index}.png")
    words = ["--data", "own.npz", "--epochs", 20]
    sizes = ["--latent-dim", 16, "--batch-size", 16]
    trained(VAE, *words, *sizes, "--model-dir", "own/vae", cwd=place)
    trained(DENOISER, *words, "--model-dir", "own/denoiser", cwd=place)
    return place
