"""Where people start the scripts: closed streams, pipes, encodings, their own settings."""

import json
import os
import random
import resource
import subprocess
import sys

import keras
import matplotlib
import numpy as np
import pytest
from conftest import DENOISER, MODELS, ROOT, VAE, metrics, mnist, trained
from PIL import Image

TINY = ["--limit", "100", "--epochs", "1"]
BOTH = pytest.mark.parametrize("script", [DENOISER, VAE])


def shell(command, cwd):
    """Run a command line of a shell in which SCRIPT is a script with a tiny budget."""
    words = " ".join([sys.executable, str(ROOT / VAE), *TINY])
    command = command.replace("SCRIPT", words)
    return subprocess.run(["bash", "-c", command], cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed, tmp_path):
    """The run goes on, and nothing is written into its files by mistake."""
    process = shell(f"SCRIPT {closed}", tmp_path)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    assert metrics(tmp_path / MODELS[VAE])["epochs"] == 1
    assert keras.models.load_model(tmp_path / MODELS[VAE] / "decoder.keras").output_shape[1:3] == (
        28,
        28,
    )


def test_a_pipe_that_nobody_reads(tmp_path):
    """It ends without a word, and can be continued."""
    process = shell("SCRIPT --epochs 3 | head -1; echo ${PIPESTATUS[0]}", tmp_path)
    assert process.stderr == "" and process.stdout == "training on CPU:0\n141\n"
    assert shell("SCRIPT --epochs 3 --resume", tmp_path).returncode == 0


def test_a_log_file_has_the_lines_so_far(tmp_path):
    command = [sys.executable, ROOT / VAE, "--limit", "20000", "--epochs", "50"]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, cwd=tmp_path, stdout=log) as process,
    ):
        while "parameters" not in (tmp_path / "log").read_text():
            assert process.poll() is None
        process.kill()
    text = (tmp_path / "log").read_text()
    assert text.startswith("training on CPU:0\nmodels go to models/vae, pictures to images\n")
    assert "images (28, 28, 1): 20,000 to train, 4,000 to validate, 4,000 to test\n" in text


def test_names_that_the_encoding_lacks(tmp_path):
    command = [sys.executable, ROOT / VAE, *TINY, "--model-dir", "łódź"]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
    assert process.returncode == 0, process.stderr
    assert r"models go to \u0142ód\u017a" in process.stdout.decode("cp1252")
    assert (tmp_path / "łódź" / "metrics.json").is_file()


@BOTH
def test_settings_of_the_user(script, tmp_path):
    """Of Keras and matplotlib, and a backend that is missing: the same files as without them."""
    (tmp_path / "keras.json").write_text(
        json.dumps({"image_data_format": "channels_first", "floatx": "float64", "epsilon": 1e-7})
    )
    lines = ["text.usetex: True", "image.origin: lower", "savefig.format: pdf"]
    (tmp_path / "matplotlibrc").write_text("\n".join([*lines, "figure.facecolor: black"]))
    theirs = {"KERAS_HOME": str(tmp_path), "MPLBACKEND": "no_such_backend"}
    theirs["MATPLOTLIBRC"] = str(tmp_path / "matplotlibrc")
    trained(script, *TINY, "--model-dir", "one", cwd=tmp_path, **theirs)
    trained(script, *TINY, "--model-dir", "other", cwd=tmp_path)
    assert metrics(tmp_path / "one") == metrics(tmp_path / "other")
    pictures = [path.name for path in (tmp_path / "other").glob("*.png")]
    assert len(pictures) >= 3
    for name in pictures:
        one, other = (np.asarray(Image.open(tmp_path / d / name)) for d in ("one", "other"))
        np.testing.assert_array_equal(one, other)


@BOTH
def test_help_without_docstrings(script, tmp_path):
    command = [sys.executable, "-OO", ROOT / script, "--help"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0 and "--all-devices" in process.stdout


@BOTH
def test_what_a_run_sets_is_set_back(script, denoiser, vae, tmp_path, monkeypatch):
    """Precision, layout, seed, deterministic kernels, matplotlib, and the options themselves."""
    module = denoiser if script == DENOISER else vae
    monkeypatch.chdir(tmp_path)
    keras.config.set_image_data_format("channels_first")
    try:
        random.seed(7)
        words = ["--limit", "50", "--epochs", "1", "--bfloat16", "--model-dir", "out"]
        options = module.parse_options(words)
        before = dict(vars(options)), random.getstate(), keras.config.dtype_policy().name
        style = dict(matplotlib.rcParams)
        module.main(options)
        assert keras.config.image_data_format() == "channels_first"
    finally:
        keras.config.set_image_data_format("channels_last")
    assert (dict(vars(options)), random.getstate(), keras.config.dtype_policy().name) == before
    assert dict(matplotlib.rcParams) == style
    assert not module.tf_config.is_op_determinism_enabled()


CALLBACKS = """
import sys
sys.path.insert(0, sys.argv[1])
import VariationalAutoEncoder_tf2 as vae
words = ["--limit", "100", "--epochs", "2", "--model-dir", "out"]
each = [vae.keras.callbacks.ModelCheckpoint("epoch{epoch}.keras")]
vae.main(vae.parse_options(words), each)
"""


def test_model_checkpoint_of_keras(vae, tmp_path):
    """It saves the whole VAE, whose weights load into another one."""
    command = [sys.executable, "-W", "error::UserWarning", "-c", CALLBACKS, ROOT]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    networks = vae.build_encoder((28, 28, 1), 2), vae.build_decoder((28, 28, 1), 2)
    model = vae.VAE(*networks)
    model.load_weights(tmp_path / "epoch2.keras")
    saved = keras.models.load_model(tmp_path / "out" / "encoder.keras")
    for one, other in zip(networks[0].get_weights(), saved.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_many_samples_take_no_more_memory(vae, monkeypatch):
    """They are decoded in chunks, to nearly the same results, and never more pixels at once."""
    images = mnist(vae, 100)[2][:6]
    networks = vae.build_encoder((28, 28, 1), 2), vae.build_decoder((28, 28, 1), 2)
    whole = vae.evaluate(*networks, images, samples=400)
    monkeypatch.setattr(vae, "DECODED_VALUES", 30 * 28 * 28)
    counts = []
    decode = vae.bernoulli_negative_log_likelihood

    def counting(pixels, logits):
        counts.append(logits.shape[0] * (pixels.shape[0] or 1))
        return decode(pixels, logits)

    monkeypatch.setattr(vae, "bernoulli_negative_log_likelihood", counting)
    chunks = vae.evaluate(*networks, images, samples=400)
    assert counts and max(counts) <= 30
    for key in ("negative_elbo", "iwae_bound"):
        assert chunks[key] == pytest.approx(whole[key], abs=0.5)


def test_many_codes_of_two_labels_take_little_memory(vae, tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    codes = np.random.default_rng(0).normal(size=(5000, 2))
    vae.plot_latent_space(tmp_path / "a.png", codes, np.arange(5000) % 2, [1.0, 2.0])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def test_one_device_unless_all_are_asked_for(tmp_path):
    """A default command runs wherever it is started: 64 images are no multiple of 3 devices."""
    code = (
        "import runpy, sys, tensorflow as tf\n"
        "each = tf.config.LogicalDeviceConfiguration()\n"
        "(cpu,) = tf.config.list_physical_devices('CPU')\n"
        "tf.config.set_logical_device_configuration(cpu, [each] * 3)\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    command = [sys.executable, "-c", code, ROOT / VAE, *TINY]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("training on CPU:0\n")
    process = subprocess.run(
        [*command, "--all-devices"], cwd=tmp_path, capture_output=True, text=True
    )
    assert process.returncode == 2 and "training on CPU:0, CPU:1, CPU:2\n" in process.stdout
    assert "error: --batch-size must be a multiple of 3 with 3 devices, found 64" in process.stderr


def test_the_end_says_which_epoch_is_saved(tmp_path):
    """And the saved VAE is that of the lowest validation loss, not of the last epoch."""
    np.save(tmp_path / "few.npy", np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8))
    words = ["--data", "few.npy", "--epochs", 40, "--latent-dim", 3, "--model-dir", "out"]
    process = trained(VAE, *words, cwd=tmp_path)
    best = metrics(tmp_path / "out")["best_epoch"]
    assert best < 40
    text = f"lowest validation loss after epoch {best} of 40: its weights are saved"
    assert text in process.stdout
    history = np.genfromtxt(tmp_path / "out" / "history.csv", delimiter=",", names=True)
    assert history["val_loss"][best - 1] == history["val_loss"].min()
    assert "see out/vae_reconstructions.png first" in process.stdout


def test_rgb_images_need_more_than_two_dimensions(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    np.save(tmp_path / "rgb.npy", images)
    line = "--latent-dim 16 and more suit RGB images better than 2"
    for words, is_said in (([], True), (["--latent-dim", 16], False)):
        names = ["--data", "rgb.npy", "--epochs", 1, "--model-dir", "out"]
        process = trained(VAE, *names, *words, cwd=tmp_path)
        assert (line in process.stdout) == is_said


def test_the_record_of_a_run(tmp_path):
    """What those who use the models need to know of the images."""
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "x.npz", x_train=images, pixel_range=np.array([100.0, 4000.0]))
    words = ["--data", "x.npz", "--epochs", 1, "--noise", 0.1, 0.3, "--model-dir", "out"]
    trained(DENOISER, *words, cwd=tmp_path)
    record = metrics(tmp_path / "out")
    assert record["data"] == os.path.abspath(tmp_path / "x.npz")
    assert (record["channels"], record["pixel_range"]) == (3, [100, 4000])
    assert (record["corruption"], record["noise"]) == ("gaussian", [0.1, 0.3])
    assert record["pixel_mean"] == pytest.approx(images.mean() / 255, abs=0.02)
    assert "validation images (CRC-32)" in record["settings"]
