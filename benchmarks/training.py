"""Runs scripts as processes, as a user does, and loads what they saved."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
import zlib

import numpy as np
import results
from results import BYTES, CRC, HERE, PATHS, ROOT, THREADS

WORK = HERE / "work"  # models and checkpoints; not under version control
SMOKE = []  # arguments that shorten every training: of run.py --smoke
DROPPED = ("model_dir", "images_dir", "data", "settings", "resume", "limit")  # of metrics.json


def load(script):
    """Return a script as a module, a new one each time."""
    spec = importlib.util.spec_from_file_location(script, PATHS[script])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_model(path):
    import keras  # after the number of threads is set

    return keras.models.load_model(path)


def load_vae(folder):
    """Return the encoder and the decoder, which gives probabilities, of a finished run."""
    return load_model(folder / "encoder.keras"), load_model(folder / "decoder.keras")


def load_digits():
    """Return x_train, y_train, x_test and y_test; images are floats in [0, 1], (n, 28, 28, 1)."""
    arrays = np.load(ROOT / "data/mnist.npz")
    x_train, x_test = (np.float32(arrays[name]) / 255 for name in ("x_train", "x_test"))
    return x_train[..., np.newaxis], arrays["y_train"], x_test[..., np.newaxis], arrays["y_test"]


def relative(path):
    """Return a path as it stands in a command, from the folder of the project."""
    return str(path.relative_to(ROOT))


def work_folder(script, *words):
    """Return a folder in work/ for a version of a script; words tell its runs apart."""
    name = re.sub(r"[^\w.]+", "-", " ".join(map(str, [*words, *SMOKE])))
    return WORK / f"{script}-{CRC[script]}" / name


def environment_of(threads):
    """Return the environment of a process with so many threads."""
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    return os.environ | dict.fromkeys(names, str(threads))


def command(script, *words):
    """Run a script of this project as a command."""
    subprocess.run([sys.executable, str(ROOT / script), *map(str, words)], check=True)


def train(script, seed=0, arguments=(), variant=None, threads=THREADS):
    """Run a script, or a variant of it; continue it if it was stopped, skip it if it is finished.

    Returns:
        The folder of the models, and the seconds and peak memory in GB of the process, which are
        missing if the run was not made in one go.
    """
    folder = work_folder(script, variant or "run", seed, f"threads{threads}", *arguments)
    has_checkpoints = any(folder.glob("checkpoints/epoch-*"))
    if (folder / "metrics.json").is_file() and not has_checkpoints:
        return folder, {}
    words = [PATHS[script]] if variant is None else [HERE / "variants.py", variant, script]
    words += ["--seed", seed, *arguments, *SMOKE, "--resume"]
    words += ["--model-dir", folder, "--images-dir", folder]
    since = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *map(str, words)], cwd=ROOT, env=environment_of(threads)
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"error: {script} ended with status {os.waitstatus_to_exitcode(status)}")
    settings = json.loads((folder / "metrics.json").read_text())["settings"]
    if int(settings["script (CRC-32)"]) != zlib.crc32(BYTES[script]):
        sys.exit(f"error: {script}.py changed after the start of this command")
    seconds = round(time.perf_counter() - since, 1)
    cost = {"process_seconds": seconds, "memory": usage.ru_maxrss * 1024 / 1e9}
    return folder, {} if has_checkpoints else cost


def metrics_of(folder):
    """Return the metrics of a finished run."""
    metrics = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in metrics.items() if name not in DROPPED}


def measure(part, script, seed, arguments=(), variant=None, program=None, threads=THREADS, **more):
    """Run a script and keep its metrics, unless that was done before.

    A variant counts as the script itself, or as another program, which is named; `more` are
    further fields of the key.
    """
    key = {"part": part, "program": program or script, "arguments": [*arguments], "seed": seed}
    key |= more
    if not results.find(**key):
        folder, cost = train(script, seed, arguments, variant, threads)
        found = cost | {"history": (folder / "history.csv").read_text()}
        results.keep(script, metrics_of(folder), found, threads, **key)
