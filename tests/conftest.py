"""The two scripts as modules, and as commands run by a user in a folder of their own."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
DENOISER = "StackedDenoisingAutoEncoder.py"
VAE = "VariationalAutoEncoder_tf2.py"
MODELS = {DENOISER: "models/denoiser", VAE: "models/vae"}


def run(script, *arguments, cwd, **environment):
    """Run a script as a command; return what it printed, and its exit status."""
    command = [sys.executable, str(script if Path(script).is_absolute() else ROOT / script)]
    environment = {**os.environ, "MPLBACKEND": "", **environment}
    environment.pop("DISPLAY", None)
    command += [str(argument) for argument in arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def run_after(code, script, *arguments, cwd):
    """Run a script as a command, in a process where some code has been run before."""
    code += f"\nimport runpy, sys\nsys.argv = {[str(script), *arguments]!r}\n"
    code += f"runpy.run_path({str(script)!r}, run_name='__main__')\n"
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)


def metrics(folder):
    """Return metrics.json without what may differ between two equal runs: the times."""
    values = json.loads((folder / "metrics.json").read_text())
    return {key: values[key] for key in values if key not in ("train_seconds", "images_per_second")}


def same_end(script, one, other):
    """Assert that two runs left the same weights, history and figures."""
    import keras

    one, other = one / MODELS[script], other / MODELS[script]
    assert metrics(one) == metrics(other)
    assert (one / "history.csv").read_bytes() == (other / "history.csv").read_bytes()
    for path in one.glob("*.keras"):
        pairs = [
            keras.models.load_model(folder / path.name).get_weights() for folder in (one, other)
        ]
        for first, second in zip(*pairs, strict=True):
            np.testing.assert_array_equal(first, second)


def load(script):
    spec = importlib.util.spec_from_file_location(Path(script).stem, ROOT / script)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def denoiser():
    return load(DENOISER)


@pytest.fixture(scope="session")
def vae():
    return load(VAE)


@pytest.fixture(scope="session", params=[DENOISER, VAE])
def finished_run(request, tmp_path_factory):
    """A short run of each script: (script, folder, the finished process)."""
    folder = tmp_path_factory.mktemp("run")
    process = run(request.param, "--limit", 500, "--epochs", 2, cwd=folder)
    assert process.returncode == 0, process.stderr
    return request.param, folder, process
