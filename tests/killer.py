"""Run a script that kills itself: python killer.py POINT COUNT SCRIPT [ARGUMENT ...].

The process is gone, as by SIGKILL, when it has come to POINT for the COUNT-th time: "step" (a
training step has ended), "write" (a checkpoint is complete) or "remove" (a file of an older one).
"""

import os
import pathlib
import runpy
import signal
import sys

import keras
import tensorflow as tf

point, count, script, *arguments = sys.argv[1:]
owner, name = {
    "step": (keras.callbacks.CallbackList, "on_train_batch_end"),
    "write": (tf.train.Checkpoint, "write"),
    "remove": (pathlib.Path, "unlink"),
}[point]
original, calls = getattr(owner, name), 0


def killing(*args, **settings):
    global calls
    calls += 1
    result = original(*args, **settings)
    if calls == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    return result


setattr(owner, name, killing)
sys.argv = [script, *arguments]
runpy.run_path(script, run_name="__main__")
