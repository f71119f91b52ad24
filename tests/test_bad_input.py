"""What a user can get wrong: one line that names it, exit status 2, nothing written."""

import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from conftest import DENOISER, ROOT, VAE, refused, run

LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"

WRONG = {
    VAE: "--epochs 0, --batch-size 0, --learning-rate nan, --seed x, --latent-dim 1, --beta -1.0,"
    " --importance-samples 0, --epoch 1",
    DENOISER: "--epochs 1.5, --learning-rate 0, --limit -3, --noise inf, --data no.npz, --what 1",
}


@pytest.mark.parametrize("script", WRONG)
def test_wrong_options(script, tmp_path):
    for words in WRONG[script].split(", "):
        refused(run(script, *words.split(), cwd=tmp_path), *words.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", WRONG)
def test_a_missing_package(script, tmp_path):
    (tmp_path / "keras.py").write_text("raise ModuleNotFoundError('no keras')")
    process = run(script, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    refused(process, "no keras", "pip install -r requirements.txt")


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path.read_bytes()


GREY = np.zeros((40, 28, 28), np.uint8)
NOT_A_NUMBER = np.full((40, 28, 28), np.nan, np.float32)


def bad_files(folder):
    """Yield (name, content, what the message must hold) of files that are no data set."""
    scratch = folder / "scratch.npz"
    whole = npz(scratch, x_train=GREY)
    yield "empty", b"", ""
    yield "truncated", whole[: len(whole) // 2], ""
    yield "flipped", whole[:400] + bytes([whole[400] ^ 8]) + whole[401:], ""
    yield "objects", npz(scratch, x_train=np.array([GREY, None], dtype=object)), "pickle"
    yield "no_x_train", npz(scratch, a=GREY, b=GREY), "the arrays a, b; accepted: x_train"
    yield "no_arrays", npz(scratch), "has the arrays none; accepted: x_train"
    yield "scalar", npz(scratch, x_train=np.uint8(3)), "uint8 ()"
    yield "flat", npz(scratch, x_train=GREY.reshape(40, -1)), "(40, 784)"
    yield "two_channels", npz(scratch, x_train=np.zeros((40, 28, 28, 2), np.uint8)), "28, 2)"
    yield "small", npz(scratch, x_train=np.zeros((40, 7, 28), np.uint8)), "(40, 7, 28)"
    yield "large", npz(scratch, x_train=np.zeros((20, 257, 8), np.uint8)), "(20, 257, 8)"
    yield "few", npz(scratch, x_train=GREY[:19]), "19 images; accepted: 20 or more"
    yield "int64", npz(scratch, x_train=GREY.astype(int)), "int64"
    yield "not_a_number", npz(scratch, x_train=NOT_A_NUMBER), "float32"
    yield "out_of_range", npz(scratch, x_train=GREY + np.float32(255)), "0 to 1"
    yield "other_test", npz(scratch, x_train=GREY, x_test=GREY[:, 1:]), "(40, 27, 28)"
    yield "empty_test", npz(scratch, x_train=GREY, x_test=GREY[:0]), "x_test"
    yield "few_labels", npz(scratch, x_train=GREY, y_train=np.zeros(3)), "y_train has 3 labels"
    bytes_inside = io.BytesIO()
    with zipfile.ZipFile(bytes_inside, "w") as archive:
        archive.writestr("x_train", pickle.dumps(GREY))
    yield "bytes", bytes_inside.getvalue(), "x_train"
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999, 28, 28), }\n"
    with zipfile.ZipFile(scratch, "w") as archive:
        start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header))
        archive.writestr("x_train.npy", start + header + bytes(1000))
    yield "says_it_is_larger", scratch.read_bytes(), ""


def test_bad_files(vae, tmp_path):
    for name, content, text in bad_files(tmp_path):
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        with pytest.raises(vae.InputError) as caught:
            vae.load_images(str(path), 100)
        assert str(path) in str(caught.value) and text in str(caught.value), (name, caught.value)


def test_a_bad_file_and_a_folder_from_the_command_line(tmp_path):
    content = {name: content for name, content, _ in bad_files(tmp_path)}["objects"]
    (tmp_path / "scratch.npz").write_bytes(content)
    (tmp_path / "photos").mkdir()
    refused(run(VAE, "--data", "scratch.npz", cwd=tmp_path), "scratch.npz", "pickle")
    refused(run(DENOISER, "--data", "photos", cwd=tmp_path), "photos", "Is a directory")
    assert {path.name for path in tmp_path.iterdir()} == {"scratch.npz", "photos"}


def test_no_network(vae, monkeypatch):
    def fail():
        raise Exception("URL fetch failure on https://example.org")

    monkeypatch.setattr(vae.keras.datasets.fashion_mnist, "load_data", fail)
    with pytest.raises(vae.InputError, match=r"fashion_mnist: .*URL fetch"):
        vae.load_images("fashion_mnist", 100)


def test_splits(vae, tmp_path):
    """The last twelfth is for validation, a random tenth for the test; floats become bytes."""
    floats = np.linspace(0, 1, 60 * 64).reshape(60, 8, 8)
    np.savez(tmp_path / "x.npz", x_train=floats, y_train=np.arange(60))
    train, validation, test, labels = vae.load_images(str(tmp_path / "x.npz"), 10**9)
    assert [len(part) for part in (train, validation, test, labels)] == [50, 4, 6, 6]
    np.testing.assert_array_equal(test[..., 0], np.rint(floats[labels] * 255))
    assert max(labels) - min(labels) > 10  # files may be sorted by class
    everything = {*map(bytes, np.concatenate([train, validation, test]))}
    assert everything == {*map(bytes, np.rint(floats * 255).astype(np.uint8))}
    np.savez(tmp_path / "y.npz", x_train=floats, x_test=np.asfortranarray(floats))
    train, validation, test, labels = vae.load_images(str(tmp_path / "y.npz"), 40)
    assert [len(part) for part in (train, validation, test, labels)] == [40, 5, 8, 8]
    chosen = {*map(bytes, test)}
    assert len(chosen) == 8 and chosen < everything


def test_a_folder_of_the_other_script(tmp_path):
    """Both have an encoder.keras, and one would replace the other's."""
    for script, name in ((DENOISER, "decoder.keras"), (VAE, "model.keras")):
        folder = tmp_path / f"of-{name}"
        folder.mkdir()
        (folder / name).write_text("mine")
        words = ["--limit", "100", "--epochs", "1", "--model-dir", folder]
        process = run(script, *words, cwd=tmp_path)
        refused(process, f"{folder} has {name}, of the other script; accepted: a folder of its own")
        assert [*folder.iterdir()] == [folder / name]


def test_an_output_folder_that_is_a_file(tmp_path, script=DENOISER):
    (tmp_path / "taken").write_text("mine")
    process = run(script, "--limit", "100", "--epochs", "1", "--model-dir", "taken", cwd=tmp_path)
    assert process.returncode == 2 and process.stderr.startswith("error: ")
    assert "taken" in process.stderr and "Traceback" not in process.stderr
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_name_that_is_too_long(tmp_path, script=VAE):
    words = ["--limit", "100", "--epochs", "1", "--model-dir", 300 * "a"]
    refused(run(script, *words, cwd=tmp_path), "too long", "accepted: folders that can be written")


@pytest.mark.parametrize("name", ["run[1]", "a*", "who?", "back\\slash"])
def test_folders_from_which_no_run_could_resume(name, tmp_path, script=VAE):
    refused(run(script, "--model-dir", name, cwd=tmp_path), f"--model-dir {name}: accepted: ")
    assert not list(tmp_path.iterdir())


def test_a_backslash_separates_folders_on_windows(vae, monkeypatch):
    monkeypatch.setattr(os, "sep", "\\")
    assert str(vae.parse_options(["--model-dir", "models\\vae"]).model_dir) == "models\\vae"
    with pytest.raises(SystemExit, match="2"):
        vae.parse_options(["--model-dir", "models\\vae*"])


@pytest.mark.parametrize("package, found", [("keras", "3.10.0"), ("tensorflow", "2.18.1")])
def test_an_older_package(package, found, tmp_path, script=DENOISER):
    code = f"import {package}, runpy, sys; {package}.__version__ = '{found}'; "
    code += f"sys.argv = ['x']; runpy.run_path({str(ROOT / script)!r}, run_name='__main__')"
    command = [sys.executable, "-c", code]
    environment = {**os.environ, LOG_LEVEL: "3"}
    process = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 2
    last = process.stderr.splitlines()[-1]
    assert last.startswith(f"error: needs {package} ") and f"found {found}; pip install" in last


def test_a_bug_of_a_fork_keeps_its_traceback(tmp_path, script=DENOISER):
    """An OSError and an ImportError that no user causes."""
    for mistake in ("open('no such file')", "import no_such_package"):
        source = (ROOT / script).read_text()
        marker = "def main(options: argparse.Namespace, callbacks=()):\n"
        assert marker in source
        (tmp_path / script).write_text(source.replace(marker, f"{marker}    {mistake}\n"))
        process = run(tmp_path / script, "--limit", "100", cwd=tmp_path)
        assert process.returncode == 1 and mistake in process.stderr


def test_an_nvidia_driver_without_a_gpu_in_tensorflow(vae, monkeypatch, capsys):
    monkeypatch.setattr(vae.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    vae.choose_strategy()
    assert 'pip install "tensorflow[and-cuda]==2.21.*"' in capsys.readouterr().out
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # the user wants none
    vae.choose_strategy()
    assert "pip" not in capsys.readouterr().out


def test_messages_of_tensorflow_are_shown_to_those_who_ask(tmp_path, script=VAE):
    """Native code writes more than the scripts do when TF_CPP_MIN_LOG_LEVEL is set."""
    code = f"import runpy; runpy.run_path({str(ROOT / script)!r})"
    command = [sys.executable, "-c", code]
    settings = {"cwd": tmp_path, "capture_output": True, "text": True}
    quiet = subprocess.run(command, **settings)
    shown = subprocess.run(command, env={**os.environ, LOG_LEVEL: "0"}, **settings)
    assert quiet.stderr == "" and shown.stderr != ""


def test_a_crash_of_native_code_is_not_silent(tmp_path, script=VAE):
    (tmp_path / "tensorflow.py").write_text("import os; os.abort()")
    process = run(script, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert process.returncode < 0 and "Fatal Python error: Aborted" in process.stderr
    assert "tensorflow.py" in process.stderr
