"""Both scripts run as a user runs them, and all that they leave behind opened and checked."""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib

import numpy as np
import pytest
from conftest import DENOISER, MODELS, ROOT, VAE, metrics, run, run_after, same_end
from PIL import Image

BOTH = pytest.mark.parametrize("script", [DENOISER, VAE])
PICTURES = {
    DENOISER: {"noisy_digits.png", "denoised_digits.png", "denoiser_loss.png"},
    VAE: {
        f"vae_{n}.png" for n in ("latent_space", "manifold", "reconstructions", "samples", "loss")
    },
}


def test_the_block_that_both_scripts_need_is_the_same():
    marks = r"^# ==== The same in both scripts.*?^# ==== End of what is the same.*?$"
    find = re.compile(marks, re.DOTALL | re.MULTILINE).findall
    (one,), (other,) = (find((ROOT / script).read_text()) for script in (DENOISER, VAE))
    assert one == other


@BOTH
def test_requirements_are_those_in_the_script(script):
    metadata = re.match(r"# /// script\n(.*?)# ///\n", (ROOT / script).read_text(), re.DOTALL)
    header = tomllib.loads(re.sub(r"^# ?", "", metadata.group(1), flags=re.MULTILINE))
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert header["dependencies"] == [line.partition("#")[0].strip() for line in lines]
    assert header["requires-python"] == ">=3.11,<3.14"


def test_screen(finished_run):
    script, folder, process = finished_run
    assert process.stderr == ""  # no chatter, no warning
    assert "Epoch 2/2" in process.stdout and "val_loss" in process.stdout
    written = re.findall(r"^wrote (.*)$", process.stdout, re.MULTILINE)
    assert all((folder / path).is_file() for path in written)
    assert {path for path in written if path.startswith("images/")} == {
        f"images/{name}" for name in PICTURES[script]
    }


@BOTH
def test_the_last_words_of_a_crash_in_native_code_reach_the_screen(script, tmp_path):
    """As of TensorFlow's import on a processor that it was not built for."""
    crash = "import os\nos.write(2, b'I0000 chatter\\nF0000 no AVX\\n')\nos.abort()\n"
    (tmp_path / "keras.py").write_text(crash)
    process = run(script, cwd=tmp_path, PYTHONPATH=tmp_path)
    assert process.returncode == -signal.SIGABRT
    assert process.stderr == "F0000 no AVX\n"


def test_only_finished_files_are_left(finished_run):
    script, folder, _ = finished_run
    models = {DENOISER: ["encoder.keras", "model.keras"], VAE: ["decoder.keras", "encoder.keras"]}
    expected = [*models[script], "history.csv", "metrics.json", "checkpoints", ".lock"]
    assert sorted(p.name for p in (folder / MODELS[script]).iterdir()) == sorted(expected)
    assert {path.name for path in (folder / "images").iterdir()} == PICTURES[script]


def test_pictures_are_pictures(finished_run):
    _, folder, _ = finished_run
    for path in (folder / "images").iterdir():
        with Image.open(path) as picture:
            assert min(picture.size) > 150 and max(picture.size) > 800
            assert len(np.unique(np.asarray(picture.convert("L")))) > 20


def test_history_and_metrics(finished_run):
    script, folder, _ = finished_run
    with (folder / MODELS[script] / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(np.isfinite(float(row[key])) for row in rows for key in ("loss", "val_loss"))
    values = json.loads((folder / MODELS[script] / "metrics.json").read_text())
    figures = {
        DENOISER: "psnr ssim mse bce noisy_psnr noisy_ssim noisy_mse noise",
        VAE: "negative_elbo reconstruction kl log_likelihood log_likelihood_samples"
        " latent_dim beta importance_samples",
    }[script]
    both = (
        "seed epochs parameters train_seconds images_per_second python tensorflow keras"
        " data limit batch_size learning_rate images_dir model_dir"
    )
    assert not set(f"{figures} {both}".split()) - set(values)
    assert (values["limit"], values["epochs"], values["data"]) == (500, 2, "mnist")
    assert values["images_per_second"] == pytest.approx(1000 / values["train_seconds"], rel=0.01)
    if script == VAE:
        assert values["negative_elbo"] == pytest.approx(values["reconstruction"] + values["kl"])
        assert -values["log_likelihood"] < values["negative_elbo"]


USE = """
import sys, numpy as np, keras
assert not any("Autoencoder" in name or "AutoEncoder" in name for name in sys.modules)
x = np.load(sys.argv[2])["x_test"][:7, ..., None].astype("float32") / 255
folder = sys.argv[1]
open_model = lambda name: keras.models.load_model(f"{folder}/{name}.keras", safe_mode=True)
if "denoiser" in folder:
    y = open_model("model").predict(x, verbose=0)
    assert open_model("encoder").predict(x, verbose=0).shape[:3] == (7, 7, 7)
else:
    z_mean, z_log_sigma = open_model("encoder").predict(x, verbose=0)
    assert z_mean.shape == z_log_sigma.shape == (7, 2)
    y = open_model("decoder").predict(z_mean, verbose=0)
assert y.shape == (7, 28, 28, 1) and y.min() >= 0 and y.max() <= 1 and y.std() > 0
"""


def test_saved_models_open_without_this_project(finished_run, tmp_path):
    script, folder, _ = finished_run
    arguments = [sys.executable, "-c", USE, folder / MODELS[script], ROOT / "data" / "mnist.npz"]
    process = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


def test_same_seed_same_bits(finished_run, tmp_path):
    script, folder, _ = finished_run
    again = run(script, "--limit", 500, "--epochs", 2, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    same_end(script, folder, tmp_path)


def test_another_seed_another_run_and_nothing_deleted(finished_run, tmp_path):
    script, folder, _ = finished_run
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    places = ["--images-dir", "out", "--model-dir", "out"]
    process = run(script, "--limit", 500, "--epochs", 2, "--seed", 1, *places, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
    one, other = metrics(folder / MODELS[script]), metrics(tmp_path / "out")
    key = "psnr" if script == DENOISER else "negative_elbo"
    assert one[key] != other[key]


def test_floats_and_other_orders_of_memory(vae, tmp_path):
    floats = np.linspace(0, 1, 20 * 64).reshape(20, 8, 8)
    np.savez(tmp_path / "floats.npz", x_train=floats, x_test=np.asfortranarray(floats))
    images = vae.load_images(str(tmp_path / "floats.npz"))
    np.testing.assert_array_equal(images.test[..., 0], np.rint(floats * 255))
    np.testing.assert_array_equal(images.train[..., 0], np.rint(floats[:19] * 255))
    assert all(part.flags.c_contiguous for part in images[:3])


def test_the_plane_of_many_dimensions_is_that_of_most_variance(vae):
    draw = np.random.default_rng(0)
    turn, _ = np.linalg.qr(draw.normal(size=(5, 5)))
    codes = draw.normal(size=(4000, 5)) * [3, 0.2, 2, 0.1, 0.3] @ turn
    directions, names, note = vae.plane_of(codes)
    np.testing.assert_allclose(np.abs(directions @ turn.T)[:, [0, 2]], np.eye(2), atol=0.03)
    assert "principal" in names[0] and "principal components, of 5" in note
    assert vae.plane_of(codes[:1])[0].shape == (2, 5)
    directions, names, note = vae.plane_of(codes[:, :2])
    np.testing.assert_array_equal(directions, np.eye(2))
    assert names == ["z[0]", "z[1]"] and note == ""


def test_odd_classes_can_be_drawn(vae, tmp_path):
    codes = np.random.default_rng(0).normal(size=(300, 2))
    for labels in (np.array(["$a_$", "_b", "c"] * 100), np.arange(300)):
        vae.draw_latent_space(tmp_path / "x.png", codes, labels)
        with Image.open(tmp_path / "x.png") as picture:
            assert max(picture.size) < 2000


@pytest.mark.parametrize("shape", [(8, 8, 1), (9, 255, 1), (100, 30, 3), (256, 256, 3)])
def test_models_of_every_size_end_where_they_began(shape, denoiser, vae):
    images = np.zeros((2, *shape), np.float32)
    encoder = denoiser.build_encoder(shape)
    assert (
        denoiser.build_decoder(shape, encoder.output.shape[1:])(encoder(images)).shape[1:] == shape
    )
    z_mean, z_log_sigma = vae.build_encoder(shape, 3)(images)
    assert z_mean.shape == z_log_sigma.shape == (2, 3)
    assert vae.build_decoder(shape, 3)(z_mean).shape[1:] == shape


def test_more_than_two_latent_dimensions(tmp_path):
    process = run(VAE, "--limit", 100, "--epochs", 1, "--latent-dim", 5, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert {path.name for path in (tmp_path / "images").iterdir()} == PICTURES[VAE]


@BOTH
def test_help_and_mistakes_answer_at_once(script, tmp_path):
    missing = ["--data", "no such file.npz"]
    for arguments, status in ((["--help"], 0), (["--no-such-option"], 2), (missing, 2)):
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            assert run(script, *arguments, cwd=tmp_path).returncode == status
            seconds.append(time.perf_counter() - started)
        assert min(seconds) < 0.5


def test_a_script_alone_takes_its_digits_from_keras(tmp_path, script=VAE):
    """Downloaded alone, without data/: Keras's cache stands in for the download."""
    shutil.copy(ROOT / script, tmp_path)
    cache = tmp_path / "home" / "datasets"
    cache.mkdir(parents=True)
    download = (
        "import numpy, keras\n"
        f"arrays = numpy.load({str(ROOT / 'data' / 'mnist.npz')!r})\n"
        "halves = [(arrays['x_' + n][:600], arrays['y_' + n][:600]) for n in ('train', 'test')]\n"
        "keras.datasets.mnist.load_data = lambda: tuple(halves)\n"
    )
    process = run_after(download, script, "--epochs", "1", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert metrics(tmp_path / MODELS[script])["data"] == "mnist"


@pytest.mark.parametrize(
    ("script", "height", "width", "channels", "kind"),
    [(DENOISER, 30, 21, 0, "float32"), (VAE, 33, 64, 3, "uint8")],
)
def test_other_shapes(script, height, width, channels, kind, tmp_path):
    shape = (40, height, width, *([channels] if channels else []))
    x = np.random.default_rng(1).random(shape)
    x = (x * 255).astype("uint8") if kind == "uint8" else x.astype(kind)
    np.savez(tmp_path / "own.npz", x_train=x)
    process = run(script, "--data", "own.npz", "--epochs", 1, cwd=tmp_path)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("source", ["mnist", "fashion_mnist"])
def test_splits(source, vae, monkeypatch):
    """The last 5,000 of the 60,000 are for validation, and the 10,000 for the test."""
    with np.load(ROOT / "data" / "mnist.npz") as arrays:
        train, test = ((arrays["x_" + n], arrays["y_" + n]) for n in ("train", "test"))
    monkeypatch.setattr(vae.keras.datasets.fashion_mnist, "load_data", lambda: (train, test))
    images = vae.load_images(source)
    assert [part.shape[0] for part in images] == [55000, 5000, 10000, 10000]
    assert all(part.dtype == np.uint8 and part.shape[1:] == (28, 28, 1) for part in images[:3])
    np.testing.assert_array_equal(images.train[..., 0], train[0][:55000])
    np.testing.assert_array_equal(images.validation[..., 0], train[0][55000:])
    np.testing.assert_array_equal(images.test[..., 0], test[0])
    np.testing.assert_array_equal(images.test_labels, test[1])
    few = vae.load_images(source, 1000)
    assert [part.shape[0] for part in few] == [1000, 200, 200, 200]
    np.testing.assert_array_equal(few.train[..., 0], train[0][:1000])


def test_every_epoch_sees_every_image_once_in_a_new_order_with_new_noise(denoiser):
    from types import SimpleNamespace

    images = np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1)
    images = np.broadcast_to(images, (100, 8, 8, 1)).copy()
    options = SimpleNamespace(batch_size=32, epochs=2, seed=5, limit=None)
    batches = list(denoiser.training_batches(images, denoiser.with_noise(0.5), options))
    assert [len(clean) for _, clean in batches] == [32, 32, 32, 4] * 2
    clean = np.concatenate([clean for _, clean in batches])
    order = np.rint(clean[:, 0, 0, 0] * 255).astype(int).reshape(2, 100)
    assert all(sorted(epoch) == list(range(100)) for epoch in order)
    assert (order[0] != order[1]).any() and (order[0] != np.arange(100)).any()
    noise = np.concatenate([noisy - clean for noisy, clean in batches]).reshape(2, 100, -1)
    by_image = [noise[epoch][np.argsort(order[epoch])] for epoch in (0, 1)]
    assert (np.abs(by_image[0] - by_image[1]).max(axis=1) > 0.1).all()
    frozen = denoiser.frozen_batches(images, denoiser.with_noise(0.5), 5, "test")
    for (one, _), (other, _) in zip(frozen, frozen, strict=True):
        np.testing.assert_array_equal(one, other)
