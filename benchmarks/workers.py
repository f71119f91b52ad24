"""Time training steps of one and of two workers: python benchmarks/workers.py, about 8 minutes.

Like run.py, it adds a line to results.jsonl for each result and skips those that have one.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile

from run import HERE, SCRIPTS, is_done, keep


def free_addresses(count):
    """Return addresses of this machine with ports that nothing listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


def step_milliseconds(script, batch_size, count):
    """Return the median time of a script's training step by `count` workers of one thread."""
    hosts = free_addresses(count)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, HERE / "steps.py", SCRIPTS[script], "--limit", "6400"]
        command += ["--epochs", "2", "--batch-size", str(batch_size)]
        command += ["--model-dir", folder, "--images-dir", folder]
        processes = []
        for index in range(count):
            config = {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
            threads = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
            environment = {**os.environ, **threads, "TF_CONFIG": json.dumps(config)}
            processes.append(
                subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
            )
        said = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit(f"error: a worker of {script} failed")
    return float(said[0].splitlines()[-1])


def main():
    """Time training steps of one and of two workers of one thread each."""
    for script in SCRIPTS:
        for batch_size, count in ((64, 1), (64, 2), (128, 2), (32, 1)):
            key = {"part": "workers", "program": script, "batch_size": batch_size, "workers": count}
            if not is_done(**key):
                keep(**key, milliseconds=step_milliseconds(script, batch_size, count))


if __name__ == "__main__":
    main()
