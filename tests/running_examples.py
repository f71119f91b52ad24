"""The examples as modules, and as commands run by a user."""

import contextlib
import importlib.util
import io
import os
import runpy
import subprocess
import sys
import unittest.mock

from conftest import ROOT

FOLDER = ROOT / "examples"


def example(name, *words, cwd, **environment):
    """Run an example as a command."""
    command = [sys.executable, FOLDER / f"{name}.py", *map(str, words)]
    environment = {**os.environ, **environment}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def ran(name, *words, cwd):
    """Run an example that has to end well and without a word on stderr; return what it printed."""
    process = example(name, *words, cwd=cwd)
    assert process.returncode == 0, process.stderr
    assert process.stderr == "", process.stderr
    return process.stdout


def worked(name, *words, cwd):
    """Run an example as `ran` does, but in this process, which saves the start of TensorFlow."""
    path = FOLDER / f"{name}.py"
    arguments = [str(path), *map(str, words)]
    folders = [str(FOLDER), *sys.path]
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(cwd))
        stack.enter_context(unittest.mock.patch.object(sys, "argv", arguments))
        stack.enter_context(unittest.mock.patch.object(sys, "path", folders))
        stack.enter_context(unittest.mock.patch.dict(os.environ))
        printed = stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        errors = stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as end:
            assert not end.code, errors.getvalue()
    assert errors.getvalue() == ""
    return printed.getvalue()


def module(name):
    """Return an example as a module."""
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))  # of pictures.py
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)  # which it may have set, for later commands
    return loaded
