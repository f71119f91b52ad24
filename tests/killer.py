"""Run a script that kills itself: python killer.py POINT COUNT SCRIPT [ARGUMENT ...].

The process is gone, as by SIGKILL, when it has come to POINT for the COUNT-th time: "step" (a
training step has ended), "half" (a checkpoint is written, but not at its place), "write" (it is
at its place) or "remove" (an older one is gone).
"""

import os
import pathlib
import runpy
import signal
import sys

import keras
import numpy as np

point, count, script, *arguments = sys.argv[1:]
owner, name = {
    "step": (keras.callbacks.CallbackList, "on_train_batch_end"),
    "half": (np, "savez"),
    "write": (os, "replace"),
    "remove": (pathlib.Path, "unlink"),
}[point]
original, calls = getattr(owner, name), 0


def is_meant(path):
    """Return whether a path is that of a checkpoint, at its place or not."""
    return pathlib.Path(path).name.startswith("epoch-" if point == "remove" else (".", "epoch-"))


def killing(*args, **settings):
    global calls
    calls += point == "step" or is_meant(args[0])
    result = original(*args, **settings)
    if calls == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    return result


setattr(owner, name, killing)
sys.argv = [script, *arguments]
runpy.run_path(script, run_name="__main__")
