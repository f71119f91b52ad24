"""Run a script and print the median time of its training steps in ms: python steps.py SCRIPT ..."""

import itertools
import runpy
import statistics
import sys
import time

import keras

ends = []
report = keras.callbacks.CallbackList.on_train_batch_end


def timed(self, *batch):
    ends.append(time.perf_counter())
    return report(self, *batch)


keras.callbacks.CallbackList.on_train_batch_end = timed
_, script, *arguments = sys.argv
sys.argv = [script, *arguments]
try:
    runpy.run_path(script, run_name="__main__")
finally:
    steps = [end - start for start, end in itertools.pairwise(ends)]
    print(1000 * statistics.median(steps))
