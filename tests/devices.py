"""Run a script on a processor taken for several: python devices.py COUNT SCRIPT [ARGUMENT ...]."""

import runpy
import sys

import tensorflow as tf

count, script, *arguments = sys.argv[1:]
(cpu,) = tf.config.list_physical_devices("CPU")
each = tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(cpu, [each] * int(count))
sys.argv = [script, *arguments]
runpy.run_path(script, run_name="__main__")
