"""Digits and trained models for the benchmarks that use them; the models are kept in work/."""

import subprocess
import sys

import numpy as np
import run


def load_digits():
    """Return x_train, y_train, x_test and y_test; images are floats in [0, 1], (n, 28, 28, 1)."""
    arrays = np.load(run.HERE.parent / "data/mnist.npz")
    x_train, x_test = (np.float32(arrays[name]) / 255 for name in ("x_train", "x_test"))
    return x_train[..., np.newaxis], arrays["y_train"], x_test[..., np.newaxis], arrays["y_test"]


def trained(script, *words):
    """Return the folder of a run with seed 0, which is trained if it is not there."""
    folder = run.folder_of(script, 0, words)
    if not (folder / "metrics.json").is_file():
        places = ["--model-dir", folder, "--images-dir", folder]
        subprocess.run([sys.executable, run.SCRIPTS[script], *words, *places], check=True)
    return folder
