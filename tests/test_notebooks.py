"""The scripts in a notebook: run by %run, imported as modules, pasted; and the notebook itself."""

import os
import re
import subprocess
import sys

import nbclient
import nbformat
import numpy as np
from conftest import DENOISER, ROOT, VAE, metrics
from PIL import Image

WORDS = ["--limit", "200", "--epochs", "1", "--model-dir"]


def executed(sources, folder, allow_errors=False):
    """Execute cells of code in one kernel; return the cells with their outputs."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    settings = {"kernel_name": "python3", "resources": {"metadata": {"path": str(folder)}}}
    client = nbclient.NotebookClient(notebook, timeout=300, allow_errors=allow_errors, **settings)
    client.execute()
    return notebook.cells


def screen(cell):
    """Return what a cell wrote to the screen, and the last line of an error.

    A line may come in several outputs, if the kernel pauses within it.
    """
    texts = [output.get("text") or f"\n{output.get('evalue', '')}\n" for output in cell.outputs]
    return "".join(texts)


def test_run_and_import_twice_in_one_kernel(tmp_path):
    """All four runs end with the same results, and each leaves its own files."""
    module = DENOISER.removesuffix(".py")
    run_it = f"%run {ROOT / DENOISER} {' '.join(WORDS)} FOLDER"
    import_it = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {module} as script\n"
        f"script.main(script.parse_options([*{WORDS}, 'FOLDER']))"
    )
    cells = []
    for name, source in zip("abcd", [run_it, run_it, import_it, import_it], strict=True):
        cells.append(source.replace("FOLDER", name))
    screens = [screen(cell) for cell in executed(cells, tmp_path)]
    assert all("means per test image" in text for text in screens)
    results = [metrics(tmp_path / name) for name in "abcd"]
    assert all(result == results[0] for result in results)
    assert all(len(list((tmp_path / name).glob("*.png"))) >= 3 for name in "abcd")


def test_mistakes_in_a_notebook_are_one_line(tmp_path):
    """A wrong option of %run, and a script that was pasted into a cell."""
    sources = [f"%run {ROOT / VAE} --epochs 0", (ROOT / VAE).read_text()]
    wrong, pasted = executed(sources, tmp_path, allow_errors=True)
    assert "error: --epochs must be 1 to 1,000,000, found 0" in screen(wrong)
    assert "error: the script must be a file, found pasted code" in screen(pasted)
    assert not any(tmp_path.iterdir())


def test_another_backend_of_keras_is_refused(tmp_path):
    code = f"import keras, sys; sys.path.insert(0, {str(ROOT)!r}); import {VAE[:-3]}"
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    command = [sys.executable, "-c", code]
    settings = {"env": environment, "capture_output": True, "text": True}
    process = subprocess.run(command, cwd=tmp_path, **settings)
    assert process.returncode == 1
    last_line = process.stderr.splitlines()[-1]
    assert last_line == "ImportError: Keras must run on tensorflow, found jax"


def test_the_code_of_running_md(tmp_path):
    """Its blocks of Python, one after the other in one process, on fewer images."""
    text = (ROOT / "docs" / "running.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
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
    for name in ("epoch1.png", "epoch2.png", "try/encoder.keras"):
        assert (tmp_path / name).is_file()


NOTEBOOK = ROOT / "examples" / "autoencoders.ipynb"
BUDGET = {"LIMIT = 20000": "LIMIT = 700", "EPOCHS = 3": "EPOCHS = 1", "EPOCHS = 6": "EPOCHS = 1"}


def test_the_notebook_runs_from_a_clean_kernel(tmp_path):
    """All its cells with a small budget, next to a copy of the project and a folder of pictures."""
    (tmp_path / "autoencoders").symlink_to(ROOT)
    (tmp_path / "photos").mkdir()
    draw = np.random.default_rng(0)
    for number in range(30):
        picture = Image.fromarray(draw.integers(0, 256, (40, 50, 3), dtype=np.uint8))
        picture.save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "photos" / "broken.png").write_text("no picture")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    for large, small in BUDGET.items():
        assert large in sources[0]
        sources[0] = sources[0].replace(large, small)
    cells = executed(sources, tmp_path)
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    assert kinds.count("image/png") == 10
    assert kinds.count("application/vnd.jupyter.widget-view+json") == 1  # the sliders
    assert kinds.count("text/html") == 5  # the bars
    assert "vae_reconstructions.png first" in outputs[-2].text  # own pictures
    assert "image/png" in outputs[-1].data
    assert "broken.png" in screen(cells[-1])
    assert (tmp_path / "notebook-models" / "own" / "decoder.keras").is_file()


def test_the_notebook_is_saved_with_its_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    kinds = [output.output_type for cell in code for output in cell.outputs]
    assert kinds.count("display_data") >= 8 and "error" not in kinds
    assert "widgets" not in notebook.metadata  # their state does not show where code is hosted
