"""The examples as modules, and as commands run by a user."""

import importlib.util
import os
import subprocess
import sys

from conftest import ROOT

FOLDER = ROOT / "examples"


def example(name, *words, cwd, **environment):
    """Run an example as a command."""
    command = [sys.executable, FOLDER / f"{name}.py", *map(str, words)]
    environment = {**os.environ, **environment}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def worked(name, *words, cwd):
    """Run an example that has to end well and without a word on stderr; return what it printed."""
    process = example(name, *words, cwd=cwd)
    assert process.returncode == 0, process.stderr
    assert process.stderr == "", process.stderr
    return process.stdout


def module(name):
    """Return an example as a module."""
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))  # of pictures.py
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)  # which it may have set, for later commands
    return loaded
