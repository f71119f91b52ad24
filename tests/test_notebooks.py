"""The scripts in a notebook: run by %run, imported as modules, pasted; and the notebook itself."""

import json
import os
import re
import subprocess
import sys

import nbclient
import nbformat
import pytest
from conftest import DENOISER, ROOT, VAE, metrics

BOTH = pytest.mark.parametrize("script", [DENOISER, VAE])
WORDS = ["--limit", "200", "--epochs", "1", "--model-dir"]


def run_cells(*sources, cwd, allow_errors=False):
    """Run cells in one kernel; return what each wrote to the screen, tracebacks included."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    resources = {"metadata": {"path": str(cwd)}}
    settings = {"timeout": 300, "kernel_name": "python3", "resources": resources}
    nbclient.NotebookClient(notebook, allow_errors=allow_errors, **settings).execute()
    screens = []
    for cell in notebook.cells:
        texts = [output.get("text") or output.get("evalue", "") for output in cell.outputs]
        screens.append("\n".join(texts))
    return screens


@BOTH
def test_run_and_import_twice_in_one_kernel(script, tmp_path):
    """All four runs end with the same results, and each leaves its own files."""
    module = script.removesuffix(".py")
    run_it = f"%run {ROOT / script} {' '.join(WORDS)} FOLDER"
    import_it = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {module} as script\n"
        f"script.main(script.parse_options([*{WORDS}, 'FOLDER']))"
    )
    cells = []
    for name, source in zip("abcd", [run_it, run_it, import_it, import_it], strict=True):
        cells.append(source.replace("FOLDER", name))
    screens = run_cells(*cells, cwd=tmp_path)
    assert all("means over the test images" in screen for screen in screens)
    results = [metrics(tmp_path / name) for name in "abcd"]
    assert all(result == results[0] for result in results)
    assert all(len(list((tmp_path / name).glob("*.png"))) >= 3 for name in "abcd")


@BOTH
def test_mistakes_in_a_notebook_are_one_line(script, tmp_path):
    """A wrong option of %run, and a script that was pasted into a cell."""
    wrong, pasted = run_cells(
        f"%run {ROOT / script} --epochs 0",
        (ROOT / script).read_text(),
        cwd=tmp_path,
        allow_errors=True,
    )
    assert "error: argument --epochs: 0: accepted: int from 1" in wrong
    assert "error: pasted code" in pasted and "%run SCRIPT.py" in pasted
    assert not any(tmp_path.iterdir())


@BOTH
def test_another_backend_of_keras_is_refused(script, tmp_path):
    code = f"import keras, sys; sys.path.insert(0, {str(ROOT)!r}); import {script[:-3]}"
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    command = [sys.executable, "-c", code]
    settings = {"env": environment, "capture_output": True, "text": True}
    process = subprocess.run(command, cwd=tmp_path, **settings)
    assert process.returncode == 2
    last_line = process.stderr.splitlines()[-1]  # Keras was imported before, with its messages
    assert last_line.startswith("error: Keras runs on jax here; accepted: tensorflow")
    assert "Traceback" not in process.stderr


def test_the_code_of_running_md(tmp_path):
    """Its blocks of Python, one after the other in one process, on fewer images."""
    text = (ROOT / "docs" / "running.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        assert len(block.split("\n\n")) <= 2 and len(block.replace("\n\n", "\n").splitlines()) <= 5
    code = "".join(blocks) + "vae.main(options, [Samples()])\n"
    code = code.replace('"5000"', '"200"').replace('"5"', '"2"')
    code += "assert encoder.predict(vae.np.zeros((3, 28, 28, 1)), verbose=0)[0].shape == (3, 2)\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    settings = {"env": environment, "capture_output": True, "text": True}
    process = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, **settings)
    assert process.returncode == 0, process.stderr
    assert any((tmp_path / "logs" / "train").iterdir())
    for name in ("epoch1.png", "epoch2.png", "try/encoder.keras", "further/encoder.keras"):
        assert (tmp_path / name).is_file()
    assert json.loads((tmp_path / "further/metrics.json").read_text())["start_from"] == "try"
