"""Where people start the scripts: closed streams, pipes, encodings, their own settings."""

import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import matplotlib
import numpy as np
import pytest
from conftest import DENOISER, MODELS, ROOT, VAE, metrics, mnist, trained_here

TINY = ["--limit", "100", "--epochs", "1"]
BOTH = pytest.mark.parametrize("script", [DENOISER, VAE])
QUICK = pytest.mark.quick


def shell(command, cwd):
    """Run a command line of a shell in which SCRIPT is a script with a tiny budget."""
    words = " ".join([sys.executable, str(ROOT / VAE), *TINY])
    command = command.replace("SCRIPT", words)
    return subprocess.run(["bash", "-c", command], cwd=cwd, capture_output=True, text=True)


def test_closed_streams(tmp_path):
    """The run goes on, and nothing is written into its files by mistake."""
    process = shell("SCRIPT <&- >&- 2>&-", tmp_path)
    assert process.returncode == 0
    assert metrics(tmp_path / MODELS[VAE])["epochs"] == 1
    decoder = keras.models.load_model(tmp_path / MODELS[VAE] / "decoder.keras")
    assert decoder.output_shape[1:3] == (28, 28)


def test_a_pipe_that_nobody_reads(tmp_path):
    """It ends without a word."""
    process = shell("SCRIPT --epochs 3 | head -1; echo ${PIPESTATUS[0]}", tmp_path)
    assert process.stderr == "" and process.stdout == "training on CPU:0\n141\n"


@BOTH
def test_help_without_docstrings(script, tmp_path):
    command = [sys.executable, "-OO", ROOT / script, "--help"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0 and "--all-devices" in process.stdout


@BOTH
def test_what_a_run_sets_is_set_back(script, modules, tmp_path):
    """Precision, layout, seed, deterministic kernels, matplotlib, and the options themselves."""
    module = modules[script]
    keras.config.set_image_data_format("channels_first")
    try:
        random.seed(7)
        before = random.getstate(), keras.config.dtype_policy().name
        style = dict(matplotlib.rcParams)
        options = module.parse_options([*TINY, "--bfloat16", "--model-dir", str(tmp_path)])
        as_given = dict(vars(options))
        module.main(options)
        assert keras.config.image_data_format() == "channels_first"
    finally:
        keras.config.set_image_data_format("channels_last")
    assert (random.getstate(), keras.config.dtype_policy().name) == before
    assert dict(vars(options)) == as_given and dict(matplotlib.rcParams) == style
    assert not module.tf_config.is_op_determinism_enabled()
    encoder = keras.models.load_model(tmp_path / "encoder.keras")  # of mixed precision
    assert "bfloat16" in {layer.compute_dtype for layer in encoder.layers}
    assert {weight.dtype for weight in encoder.weights} == {"float32"}
    if script == VAE:
        assert {output.dtype for output in encoder.outputs} == {"float32"}


@pytest.mark.filterwarnings("error::UserWarning")
def test_model_checkpoint_of_keras(vae, tmp_path):
    """It saves the whole VAE, whose weights load into another one."""
    each = [vae.keras.callbacks.ModelCheckpoint("epoch{epoch}.keras")]
    words = ["--limit", 100, "--epochs", 2, "--model-dir", "out"]
    trained_here(vae, *words, cwd=tmp_path, callbacks=each)
    networks = vae.build_encoder((28, 28, 1), 2), vae.build_decoder((28, 28, 1), 2)
    model = vae.VAE(*networks)
    model.load_weights(tmp_path / "epoch2.keras")
    saved = keras.models.load_model(tmp_path / "out" / "encoder.keras")
    for one, other in zip(networks[0].get_weights(), saved.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@QUICK
def test_many_samples_take_no_more_memory(vae, monkeypatch):
    """They are decoded in chunks, to nearly the same results, and never more pixels at once."""
    images = mnist(vae, 100)[2][:6]
    keras.utils.set_random_seed(0)
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
    assert chunks["negative_elbo"] == pytest.approx(whole["negative_elbo"], abs=0.5)
    bounds = [part["negative_iwae_bound"] for part in (chunks, whole)]
    assert bounds[0] == pytest.approx(bounds[1], abs=1.5)  # < log(400 / 30)


def peak_memory():
    """Return the most memory of this process in KiB, since 5 was written to clear_refs."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


@QUICK
def test_many_codes_of_two_labels_take_little_memory(vae, tmp_path):
    codes = np.random.default_rng(0).normal(size=(5000, 2))
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_memory()
    vae.plot_latent_space(tmp_path / "a.png", codes, np.arange(5000) % 2, [1.0, 2.0])
    assert peak_memory() - before < 300_000


@QUICK
@pytest.mark.parametrize("script, divisor, other", [(DENOISER, 12, 66), (VAE, 3, 100)])
def test_one_device_unless_all_are_asked_for(script, divisor, other, modules, monkeypatch, capsys):
    """A default command runs wherever it is started: 64 images are no multiple of 3 devices.

    Two devices that are there have tests in test_distribution.py.
    """
    module = modules[script]
    tf = module.tf
    devices = [SimpleNamespace(name=f"/device:CPU:{index}") for index in range(3)]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: devices * (kind == "CPU"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    three = SimpleNamespace(num_replicas_in_sync=3)
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda: three)
    assert module.choose_strategy(False, 64).num_replicas_in_sync == 1
    assert capsys.readouterr().out == "training on CPU:0\n"
    assert module.choose_strategy(True, 5 * divisor) == three
    assert capsys.readouterr().out == "training on CPU:0, CPU:1, CPU:2\n"
    reason = f"--batch-size must be a multiple of {divisor} with 3 devices, found "
    for size in (64, other):
        with pytest.raises(module.InputError, match=f"{reason}{size}"):
            module.choose_strategy(True, size)


def test_the_end_says_which_epoch_is_saved(vae, tmp_path):
    """And the saved VAE is that of the lowest validation loss, not of the last epoch."""
    images = np.zeros((60, 8, 8), np.uint8)
    images[:, :4] = np.random.default_rng(0).integers(100, 256, (60, 4, 8), np.uint8)
    np.savez(tmp_path / "few.npz", x_train=images, x_val=images[:9, ::-1])  # what it unlearns
    words = ["--data", "few.npz", "--epochs", 3, "--latent-dim", 3, "--model-dir", "out"]
    printed = trained_here(vae, *words, cwd=tmp_path, plot=True)
    best = metrics(tmp_path / "out")["best_epoch"]
    assert best < 3
    assert f"lowest validation loss after epoch {best} of 3: its weights are saved" in printed
    history = np.genfromtxt(tmp_path / "out" / "history.csv", delimiter=",", names=True)
    assert history["val_loss"][best - 1] == history["val_loss"].min()
    encoder = keras.models.load_model(tmp_path / "out" / "encoder.keras")
    codes = encoder.predict(images[:9, ::-1, :, np.newaxis] / 255, verbose=0)
    kl = np.mean(np.sum(vae.kl_to_standard_normal(*codes), axis=1))
    assert kl == pytest.approx(history["val_kl"][best - 1], rel=1e-4)
    assert kl != pytest.approx(history["val_kl"][-1], rel=1e-3)
    assert "see out/vae_reconstructions.png first" in printed


@QUICK
@pytest.mark.parametrize("words", [[], ["--latent-dim", "16"]])
def test_rgb_images_need_more_than_two_dimensions(words, vae, tmp_path, monkeypatch, capsys):
    class BeforeTraining(Exception):
        pass

    def stop(*arguments):
        raise BeforeTraining

    monkeypatch.setattr(vae, "choose_strategy", stop)
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    np.save(tmp_path / "rgb.npy", images)
    with pytest.raises(BeforeTraining):
        vae.main(vae.parse_options(["--data", str(tmp_path / "rgb.npy"), *words]))
    line = "--latent-dim 16 and more suit RGB images better than 2"
    assert (line in capsys.readouterr().out) == (not words)


def test_the_record_of_a_run(denoiser, tmp_path):
    """What those who use the models need to know of the images."""
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "x.npz", x_train=images, pixel_range=np.array([100.0, 4000.0]))
    words = ["--data", "x.npz", "--epochs", 1, "--noise", 0.1, 0.3, "--model-dir", "out"]
    trained_here(denoiser, *words, cwd=tmp_path, plot=True)
    record = metrics(tmp_path / "out")
    assert record["data"] == os.path.abspath(tmp_path / "x.npz")
    assert (record["channels"], record["pixel_range"]) == (3, [100, 4000])
    assert (record["corruption"], record["noise"]) == ("gaussian", [0.1, 0.3])
    assert record["pixel_mean"] == pytest.approx(images.mean() / 255, abs=0.02)
    assert "validation images (CRC-32)" in record["settings"]
