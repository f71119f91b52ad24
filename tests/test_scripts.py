"""Both scripts run as a user runs them, and all that they leave behind opened and checked."""

import csv
import json
import re
import shutil
import subprocess
import sys
import time
import tomllib

import numpy as np
import pytest
from conftest import DENOISER, MODELS, ROOT, VAE, metrics, run, same_end, trained
from PIL import Image

BOTH = pytest.mark.parametrize("script", [DENOISER, VAE])
VAE_PICTURES = ("latent_space", "manifold", "reconstructions", "samples", "loss")
PICTURES = {
    DENOISER: {"noisy_digits.png", "denoised_digits.png", "denoiser_loss.png"},
    VAE: {f"vae_{name}.png" for name in VAE_PICTURES},
}


def shared_blocks(script):
    """Return the marked blocks of a script, the second of which goes on to its end."""
    marks = r"^# ==== Shared by both scripts, part \d of 2.*?(?=^# ==== End of part|\Z)"
    return re.findall(marks, (ROOT / script).read_text(), re.DOTALL | re.MULTILINE)


def test_what_both_scripts_need_is_the_same_line_for_line():
    blocks = shared_blocks(DENOISER)
    assert len(blocks) == 2 and blocks == shared_blocks(VAE)
    assert sum(block.count("\n") for block in blocks) <= 310


@pytest.mark.parametrize(("script", "budget"), [(DENOISER, 500), (VAE, 640)])
def test_the_scripts_are_short_and_the_model_comes_soon(script, budget):
    lines = (ROOT / script).read_text().splitlines()
    assert len(lines) <= budget
    assert next(number for number, line in enumerate(lines) if "layers.Conv2D(" in line) < 150


@BOTH
def test_requirements_are_those_in_the_script(script):
    metadata = re.match(r"# /// script\n(.*?)# ///\n", (ROOT / script).read_text(), re.DOTALL)
    header = tomllib.loads(re.sub(r"^# ?", "", metadata.group(1), flags=re.MULTILINE))
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert header["dependencies"] == [line.partition("#")[0].strip() for line in lines]
    assert header["requires-python"] == ">=3.11,<3.14"


def test_screen_and_files(finished_run):
    script, folder, process = finished_run
    assert process.stderr == ""  # no chatter, no warning
    assert "Epoch 2/2" in process.stdout and "val_loss" in process.stdout
    written = set(re.findall(r"^wrote (.*)$", process.stdout, re.MULTILINE))
    assert written == {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    models = {DENOISER: ["encoder.keras", "model.keras"], VAE: ["decoder.keras", "encoder.keras"]}
    expected = {f"images/{name}" for name in PICTURES[script]}
    for name in (*models[script], "history.csv", "metrics.json"):
        expected.add(f"{MODELS[script]}/{name}")
    assert written == expected
    for path in (folder / "images").iterdir():
        with Image.open(path) as picture:
            assert min(picture.size) > 150 and max(picture.size) > 800
            assert len(np.unique(np.asarray(picture.convert("L")))) > 20


@pytest.mark.parametrize(
    ("code", "texts"),
    [
        ("import os\nos.write(2, b'from native code\\n')\nraise ImportError('no AVX')", 2),
        ("raise KeyboardInterrupt", 1),
    ],
)
def test_a_failed_import_shows_what_was_held_back(code, texts, tmp_path):
    (tmp_path / "keras.py").write_text(code)
    process = run(VAE, cwd=tmp_path, PYTHONPATH=tmp_path)
    assert process.returncode not in (0, 2)
    expected = ["from native code", "ImportError: no AVX"] if texts == 2 else ["KeyboardInterrupt"]
    assert all(text in process.stderr for text in expected)


def test_history_and_metrics(finished_run):
    script, folder, _ = finished_run
    with (folder / MODELS[script] / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(np.isfinite(float(row[key])) for row in rows for key in ("loss", "val_loss"))
    values = json.loads((folder / MODELS[script] / "metrics.json").read_text())
    results = {
        DENOISER: "psnr ssim mse bce noisy_psnr noisy_ssim noisy_mse noisy_bce noise",
        VAE: "negative_elbo reconstruction kl iwae_bound iwae_samples latent_dim beta",
    }[script]
    both = "seed epochs parameters train_seconds keras data limit batch_size"
    assert not set(f"{results} {both} learning_rate images_dir model_dir".split()) - set(values)
    assert (values["limit"], values["epochs"], values["data"]) == (500, 2, "mnist")
    assert 0 < values["train_seconds"] < 60
    if script == VAE:
        assert values["negative_elbo"] == pytest.approx(values["reconstruction"] + values["kl"])
        assert -values["iwae_bound"] < values["negative_elbo"]


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
    trained(script, "--limit", 500, "--epochs", 2, cwd=tmp_path)
    same_end(script, folder, tmp_path)


def test_another_seed_another_run_and_nothing_deleted(tmp_path, script=VAE):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    words = ["--limit", 100, "--epochs", 1, "--images-dir", "out", "--model-dir", "out"]
    found = []
    for seed in (0, 1):  # the second run replaces the files of the first, which is finished
        trained(script, *words, "--seed", seed, cwd=tmp_path)
        found.append(metrics(tmp_path / "out")["negative_elbo"])
    assert found[0] != found[1]
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_bfloat16(tmp_path, script=VAE):
    """Computes in bfloat16; weights stay float32, and metrics close to those in float32."""
    import keras

    words = ["--limit", 300, "--epochs", 2, "--learning-rate", 1e-4]
    for name in ("single", "mixed"):
        (tmp_path / name).mkdir()
        trained(script, *words, *["--bfloat16"] * (name == "mixed"), cwd=tmp_path / name)
    one, other = (metrics(tmp_path / name / MODELS[script]) for name in ("single", "mixed"))
    assert one["negative_elbo"] != other["negative_elbo"]
    assert one["negative_elbo"] == pytest.approx(other["negative_elbo"], rel=0.01)
    encoder = keras.models.load_model(tmp_path / "mixed" / MODELS[script] / "encoder.keras")
    assert encoder.layers[1].compute_dtype == "bfloat16"
    assert {weight.dtype for weight in encoder.weights} == {"float32"}
    assert {output.dtype for output in encoder.outputs} == {"float32"}


def test_tensorboard(tmp_path, script=DENOISER):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trained(script, "--limit", 100, "--epochs", 2, "--tensorboard", "log", cwd=tmp_path)
    rows = np.genfromtxt(tmp_path / MODELS[script] / "history.csv", delimiter=",", names=True)
    for part, prefix in (("train", ""), ("validation", "val_")):
        log = EventAccumulator(str(tmp_path / "log" / part)).Reload()
        for name in ("loss", "psnr"):
            events = [tensor_value(event) for event in log.Tensors(f"epoch_{name}")]
            assert events == pytest.approx(list(rows[prefix + name]))


def tensor_value(event):
    import tensorflow

    return float(tensorflow.make_ndarray(event.tensor_proto))


def test_the_plane_of_many_dimensions_is_that_of_most_variance(vae):
    draw = np.random.default_rng(0)
    turn, _ = np.linalg.qr(draw.normal(size=(5, 5)))
    codes = draw.normal(size=(4000, 5)) * [3, 0.2, 2, 0.1, 0.3] @ turn
    directions, names, note = vae.pca_projection(codes)
    np.testing.assert_allclose(np.abs(directions @ turn.T)[:, [0, 2]], np.eye(2), atol=0.03)
    assert "principal" in names[0] and "principal components, of 5" in note
    directions, names, note = vae.pca_projection(codes[:, :2])
    np.testing.assert_array_equal(directions, np.eye(2))
    assert names == ["z[0]", "z[1]"] and note == ""


def test_odd_classes_can_be_plotted(vae, tmp_path):
    codes = np.random.default_rng(0).normal(size=(300, 2))
    for labels in (np.array(["$a_$", "_b", "c"] * 100), np.arange(300)):
        vae.plot_latent_space(tmp_path / "x.png", codes, labels)
        with Image.open(tmp_path / "x.png") as picture:
            assert max(picture.size) < 2000


@pytest.mark.parametrize("shape", [(8, 8, 1), (9, 255, 1), (256, 256, 3)])
def test_models_of_every_size_end_where_they_began(shape, denoiser, vae):
    images = np.zeros((2, *shape), np.float32)
    encoder = denoiser.build_encoder(shape)
    decoder = denoiser.build_decoder(shape, encoder.output.shape[1:])
    assert decoder(encoder(images)).shape[1:] == shape
    z_mean, z_log_sigma = vae.build_encoder(shape, 3)(images)
    assert z_mean.shape == z_log_sigma.shape == (2, 3)
    assert vae.build_decoder(shape, 3)(z_mean).shape[1:] == shape


def test_the_decoder_starts_at_the_mean_of_the_pixels(vae):
    for mean, expected in ((0.3, 0.3), (0.0, 0.01)):
        logits = vae.build_decoder((28, 28, 1), 2, mean)(np.zeros((1, 2), np.float32)).numpy()
        assert np.median(1 / (1 + np.exp(-logits))) == pytest.approx(expected, rel=0.15)


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
    """Without data/ beside it; a stand-in for Keras's download."""
    shutil.copy(ROOT / script, tmp_path)
    code = (
        "import numpy, keras, runpy, sys\n"
        f"arrays = numpy.load({str(ROOT / 'data' / 'mnist.npz')!r})\n"
        "halves = [(arrays['x_' + n][:600], arrays['y_' + n][:600]) for n in ('train', 'test')]\n"
        "keras.datasets.mnist.load_data = lambda: tuple(halves)\n"
        f"sys.argv = [{script!r}, '--epochs', '1']\n"
        f"runpy.run_path({script!r}, run_name='__main__')\n"
    )
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert metrics(tmp_path / MODELS[script])["data"] == "mnist"


@pytest.mark.parametrize(
    ("script", "shape", "kind", "words"),
    [
        (DENOISER, (40, 30, 21), "float32", []),
        (VAE, (40, 33, 64, 3), "uint8", ["--latent-dim", "5"]),
    ],
)
def test_own_data_of_other_shapes(script, shape, kind, words, tmp_path):
    x = np.random.default_rng(1).random(shape)
    x = (x * 255).astype("uint8") if kind == "uint8" else x.astype(kind)
    np.savez(tmp_path / "own.npz", x_train=x)
    trained(script, "--data", "own.npz", "--epochs", 1, *words, cwd=tmp_path)
    assert {path.name for path in (tmp_path / "images").iterdir()} == PICTURES[script]
