"""What a user can get wrong: one line that names it, exit status 2, nothing written."""

import importlib
import io
import pickle
import re
import runpy
import struct
import sys
import zipfile

import numpy as np
import pytest
from conftest import DENOISER, ROOT, VAE, load_file, refused, run

QUICK = pytest.mark.quick

WRONG = {  # script: options, each with what the line says
    VAE: {
        "--epochs 0": "--epochs must be 1 to 1,000,000, found 0",
        "--batch-size 0": "--batch-size must be 1 to 1,000,000, found 0",
        "--learning-rate nan": "--learning-rate must be 1e-09 to 10, found nan",
        "--seed x": "--seed must be 0 to 2,147,483,647, found x",
        "--latent-dim 1": "--latent-dim must be 2 to 1,000, found 1",
        "--beta -1.0": "--beta must be 0 to 1,000,000, found -1.0",
        "--importance-samples 0": "--importance-samples must be 1 to 1,000,000, found 0",
        "--epoch 1": "unrecognized arguments: --epoch 1",
        "--data photos": "--data must be mnist, fashion_mnist or a file, found ",
    },
    DENOISER: {
        "--epochs 1.5": "--epochs must be 1 to 1,000,000, found 1.5",
        "--learning-rate 0": "--learning-rate must be 1e-09 to 10, found 0",
        "--limit 19": "--limit must be 20 to 1,000,000,000, found 19",
        "--noise inf": "--noise must be 0.001 to 100, found inf",
        "--corruption what": "--corruption: invalid choice: 'what'",
        "--data no.npz": "--data must be mnist, fashion_mnist or a file, found ",
    },
}


@QUICK
@pytest.mark.parametrize(
    "script, words", [(name, words) for name in WRONG for words in WRONG[name]]
)
def test_wrong_options(script, words, modules, capsys):
    with pytest.raises(SystemExit) as caught:
        modules[script].parse_options(words.split())
    said = capsys.readouterr().err
    assert caught.value.code == 2 and said.count("\n") == 1
    assert said.startswith(f"error: {WRONG[script][words]}")


def test_a_missing_package(tmp_path, script=VAE):
    (tmp_path / "keras.py").write_text("raise ModuleNotFoundError('no keras')")
    process = run(script, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    refused(process, "no keras", "pip install -r requirements.txt")


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path.read_bytes()


DRAW = np.random.default_rng(0).integers
GRAY = DRAW(0, 256, (40, 12, 12), dtype=np.uint8)
RGB = DRAW(0, 256, (40, 12, 12, 3), dtype=np.uint8)


def with_value(value):
    """Return floats in [0, 1] except for one value."""
    images = np.float32(GRAY / 255)
    images[3, 3, 3] = value
    return images


WRONG_ARRAYS = {  # name: x_train, and what the line says was found
    "flat": (GRAY.reshape(40, -1), "uint8 (40, 144), 0 to 255"),
    "text": (np.full((40, 12, 12), "a"), "<U1 (40, 12, 12)"),
    "complex": (GRAY * 1j, "complex128 (40, 12, 12)"),
    "scalar": (np.uint8(3), "uint8 (), 3 to 3"),
    "channels_first": (RGB.transpose(0, 3, 1, 2), "uint8 (40, 3, 12, 12)"),
    "two_channels": (RGB[..., :2], "uint8 (40, 12, 12, 2)"),
    "alpha": (DRAW(0, 256, (40, 12, 12, 4), dtype=np.uint8), "uint8 (40, 12, 12, 4)"),
    "video": (RGB[np.newaxis], "uint8 (1, 40, 12, 12, 3)"),
    "last_axis": (DRAW(0, 256, (64, 64, 30), dtype=np.uint8), "uint8 (64, 64, 30)"),
    "small": (DRAW(0, 256, (40, 7, 28), dtype=np.uint8), "uint8 (40, 7, 28)"),
    "large": (DRAW(0, 256, (20, 257, 8), dtype=np.uint8), "uint8 (20, 257, 8)"),
    "none": (GRAY[:0], "uint8 (0, 12, 12)"),
    "mask": (np.uint8(GRAY > 99), "uint8 (40, 12, 12), 0 to 1"),
    "black": (np.uint8(0 * GRAY), "uint8 (40, 12, 12), 0 to 0"),
    "integers": (GRAY.astype(int), "int64 (40, 12, 12), 0 to 255"),
    "sixteen_bits": (np.uint16(GRAY) * 16, "uint16 (40, 12, 12), 0 to 4080"),
    "to_255": (GRAY.astype(np.float32), "float32 (40, 12, 12), 0 to 255"),
    "minus_one": (np.float32(GRAY / 127.5 - 1), "float32 (40, 12, 12), -1 to 1"),
    "little_above": (with_value(1.001), "float32 (40, 12, 12), 0 to 1.001"),
    "not_a_number": (with_value(np.nan), "float32 (40, 12, 12), nan to nan"),
    "infinite": (with_value(np.inf), "float32 (40, 12, 12), 0 to inf"),
}


@QUICK
@pytest.mark.parametrize("name", WRONG_ARRAYS)
def test_arrays_that_are_not_images(name, vae, tmp_path):
    """One line: what must be, what was found, and the door."""
    array, found = WRONG_ARRAYS[name]
    path = tmp_path / "x.npz"
    np.savez(path, x_train=array)
    with pytest.raises(vae.InputError) as caught:
        load_file(vae, path)
    text = str(caught.value)
    assert text.startswith(f"{path}: x_train must be images on the first axis: (n, height, width)")
    assert f"; found {found}" in text and "examples/prepare_data.py of this project" in text


RIGHT_ARRAYS = {  # name: images, and the bytes that they become
    "bool": (GRAY > 99, 255 * np.uint8(GRAY > 99)),
    "floats": (GRAY / 255, GRAY),
    "float16": (np.float16(GRAY / 255), GRAY),
    "big_endian": ((GRAY / 255).astype(">f4"), GRAY),
    "fortran": (np.asfortranarray(GRAY), GRAY),
    "rounded": (np.float32(GRAY / 255) * np.float32(1 + 5e-7) - np.float32(2e-7), GRAY),
    "one_channel": (GRAY[..., np.newaxis], GRAY),
    "rgb": (RGB, RGB),
    "as_many_as_sides": (DRAW(0, 256, (24, 24, 24), dtype=np.uint8), None),
}


@QUICK
@pytest.mark.parametrize("name", RIGHT_ARRAYS)
def test_arrays_that_are_images(name, vae, tmp_path):
    images, expected = RIGHT_ARRAYS[name]
    for path, save in ((tmp_path / "x.npz", np.savez), (tmp_path / "x.npy", np.save)):
        if path.suffix == ".npz":
            save(path, x_train=images)
        else:
            save(path, images)
        found = np.concatenate(load_file(vae, path)[:3])
        assert found.dtype == np.uint8 and found.ndim == 4
        expected = images if expected is None else expected
        assert sorted(map(bytes, found)) == sorted(map(bytes, expected))


def bad_files(folder):
    """Yield (name, content, what the message must hold) of files that are no data set."""
    scratch = folder / "scratch.npz"
    images = np.zeros((40, 28, 28), np.uint8)
    whole = npz(scratch, x_train=images)
    yield "empty", b"", "EOFError"
    yield "truncated", whole[: len(whole) // 2], "BadZipFile"
    yield "flipped", whole[:400] + bytes([whole[400] ^ 8]) + whole[401:], "BadZipFile"
    yield "text", b"1,2,3\n4,5,6\n", "pickle"
    yield "hdf5", b"\x89HDF\r\n\x1a\n" + bytes(100), ""
    yield "objects", npz(scratch, x_train=np.array([images, None], dtype=object)), "pickle"
    yield "labels", npz(scratch, x_train=GRAY, y_train=np.array([1, None] * 20)), "pickle"
    yield "no_x_train", npz(scratch, a=GRAY, x_test=GRAY), "must have x_train, found x_test"
    yield "no_arrays", npz(scratch), "no x_train in "
    yield "few", npz(scratch, x_train=GRAY[:19]), "must have 20 or more images, found 19"
    yield "other_test", npz(scratch, x_train=GRAY, x_test=GRAY[:, 1:]), "must have one shape, found"
    yield "empty_test", npz(scratch, x_train=GRAY, x_test=GRAY[:0]), "x_test must be"
    yield "few_labels", npz(scratch, x_train=GRAY, y_train=np.zeros(3)), "found 3 for 40"
    bytes_inside = io.BytesIO()
    with zipfile.ZipFile(bytes_inside, "w") as archive:
        archive.writestr("x_train", pickle.dumps(images))
    yield "bytes", bytes_inside.getvalue(), "x_train"
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999, 28, 28), }\n"
    with zipfile.ZipFile(scratch, "w") as archive:
        start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header))
        archive.writestr("x_train.npy", start + header + bytes(1000))
    yield "says_it_is_larger", scratch.read_bytes(), ""


@QUICK
def test_bad_files(vae, tmp_path):
    for name, content, text in bad_files(tmp_path):
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        with pytest.raises(vae.InputError) as caught:
            load_file(vae, path)
        assert str(path) in str(caught.value) and text in str(caught.value), (name, caught.value)


def test_a_bad_file_from_the_command_line(tmp_path, script=VAE):
    (tmp_path / "bad.npz").write_bytes(b"1,2,3\n4,5,6\n")
    refused(run(script, "--data", "bad.npz", cwd=tmp_path), "bad.npz", "pickle")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.npz"]


@QUICK
def test_no_network(vae, monkeypatch):
    def fail():
        raise Exception("URL fetch failure on https://example.org")

    monkeypatch.setattr(vae.keras.datasets.fashion_mnist, "load_data", fail)
    with pytest.raises(vae.InputError, match=r"fashion_mnist: .*URL fetch"):
        vae.load_arrays("fashion_mnist")


@QUICK
def test_splits(vae, tmp_path):
    """The last twelfth is for validation, a random tenth for the test; floats become bytes."""
    floats = np.linspace(0, 1, 60 * 64).reshape(60, 8, 8)
    np.savez(tmp_path / "x.npz", x_train=floats, y_train=np.arange(60))
    train, validation, test, labels = load_file(vae, tmp_path / "x.npz", 10**9)
    assert [len(part) for part in (train, validation, test, labels)] == [50, 4, 6, 6]
    np.testing.assert_array_equal(test[..., 0], np.rint(floats[labels] * 255))
    assert max(labels) - min(labels) > 10  # files may be sorted by class
    everything = {*map(bytes, np.concatenate([train, validation, test]))}
    assert everything == {*map(bytes, np.rint(floats * 255).astype(np.uint8))}
    np.savez(tmp_path / "y.npz", x_train=floats, x_test=np.asfortranarray(floats))
    train, validation, test, labels = load_file(vae, tmp_path / "y.npz", 40)
    assert [len(part) for part in (train, validation, test, labels)] == [40, 5, 8, 8]
    chosen = {*map(bytes, test)}
    assert len(chosen) == 8 and chosen < everything


@QUICK
@pytest.mark.parametrize("script, name", [(DENOISER, "decoder.keras"), (VAE, "model.keras")])
def test_a_folder_of_the_other_script(script, name, modules, tmp_path):
    """Both have an encoder.keras, and one would replace the other's."""
    (tmp_path / name).write_text("mine")
    reason = f"--model-dir must be another folder for each script, found {name} of the"
    with pytest.raises(modules[script].InputError, match=reason):
        modules[script].prepare_folders(tmp_path, tmp_path / "images")
    assert [*tmp_path.iterdir()] == [tmp_path / name]


@QUICK
def test_an_output_folder_that_is_a_file(vae, tmp_path):
    (tmp_path / "taken").write_text("mine")
    for folders in (("taken", "new"), ("new", "taken")):
        with pytest.raises(OSError, match="taken"):
            vae.prepare_folders(*(tmp_path / folder for folder in folders))
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_name_that_is_too_long(tmp_path, script=VAE):
    """An OSError is one line, too."""
    words = ["--limit", "100", "--epochs", "1", "--model-dir", 300 * "a"]
    refused(run(script, *words, cwd=tmp_path), "too long", "error: [Errno 36] ")


OTHER_PACKAGES = {
    ("keras", "3.10.0"): "keras must be 3.15, found 3.10.0",
    ("keras", "3.16.0"): "keras must be 3.15, found 3.16.0",  # has other private methods
    ("tensorflow", "2.18.1"): "tensorflow must be 2.21, found 2.18.1",
}


@QUICK
@pytest.mark.parametrize("package, found", OTHER_PACKAGES)
def test_another_release_of_a_package(package, found, monkeypatch, script=DENOISER):
    """An import of the script raises an error; see test_a_missing_package for a command."""
    monkeypatch.setattr(importlib.import_module(package), "__version__", found)
    with pytest.raises(ImportError, match=re.escape(OTHER_PACKAGES[package, found])):
        runpy.run_path(str(ROOT / script))


@QUICK
def test_another_backend_of_keras(vae, monkeypatch, script=VAE):
    monkeypatch.setattr(vae.keras.config, "backend", lambda: "jax")
    with pytest.raises(ImportError, match=r"Keras must run on tensorflow, found jax"):
        runpy.run_path(str(ROOT / script))


def test_a_crash_of_native_code_is_not_silent(tmp_path, script=VAE):
    (tmp_path / "tensorflow.py").write_text("import os; os.abort()")
    process = run(script, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert process.returncode < 0 and "Fatal Python error: Aborted" in process.stderr
    assert "tensorflow.py" in process.stderr


@QUICK
def test_a_bug_of_a_fork_keeps_its_traceback(vae, tmp_path, monkeypatch, script=VAE):
    """An OSError and an ImportError that no user causes; here a command in this process."""
    monkeypatch.setattr(sys, "argv", [script])
    for mistake in ("open('no such file')", "import no_such_package", "raise ValueError('a bug')"):
        source = (ROOT / script).read_text()
        marker = "def main(options: argparse.Namespace, callbacks=()):\n"
        assert marker in source
        (tmp_path / script).write_text(source.replace(marker, f"{marker}    {mistake}\n"))
        kinds = (FileNotFoundError, ModuleNotFoundError, ValueError)
        with pytest.raises(kinds, match=r"no such file|no_such_package|a bug"):
            runpy.run_path(str(tmp_path / script), run_name="__main__")


@QUICK
def test_an_nvidia_driver_without_a_gpu_in_tensorflow(vae, monkeypatch, capsys):
    monkeypatch.setattr(vae.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    vae.choose_strategy(False, 64)
    assert 'pip install "tensorflow[and-cuda]==2.21.*"' in capsys.readouterr().out
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # the user wants none
    vae.choose_strategy(False, 64)
    assert "pip" not in capsys.readouterr().out
