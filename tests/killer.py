"""Run a script that kills itself: python killer.py POINT COUNT SCRIPT [ARGUMENT ...].

The process is gone, as by SIGKILL from outside, at the COUNT-th time that it comes to POINT:
"step" (the end of a training step), "data" (a checkpoint's tensors are on disk, and nothing points
to them yet) or "state" (they are pointed to, and the checkpoint to drop is still there).
"""

import os
import runpy
import signal
import sys

import keras

point, count, script, *arguments = sys.argv[1:]
places = {"step": (keras.callbacks.CallbackList, "on_train_batch_end")}
owner, name = places[point]
original = getattr(owner, name)
calls = 0


def killing(*args, **settings):
    global calls
    calls += 1
    if calls == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **settings)


setattr(owner, name, killing)
sys.argv = [script, *arguments]
runpy.run_path(script, run_name="__main__")
