"""Training on noisy images alone: what is hidden, what is learned from, and what is reported."""

import json

import keras
import numpy as np
import pytest
from conftest import DENOISER, MODELS, mnist, trained_here
from PIL import Image
from running_examples import worked

RANDOM = np.random.default_rng(0)


@pytest.mark.quick
@pytest.mark.parametrize("share", [0.05, 0.3])
def test_hidden_pixels_have_the_values_of_others_nearby(denoiser, share):
    noisy = RANDOM.random((8, 32, 40, 3)).astype(np.float32)
    shifts = set()
    for seed in range(120):
        hidden, target, weights = denoiser.hide_pixels(noisy, share, (0, seed))
        np.testing.assert_array_equal(target, noisy)
        is_hidden = weights.numpy() > 0
        assert np.mean(is_hidden) == pytest.approx(share, abs=0.02)
        np.testing.assert_allclose(weights.numpy()[is_hidden], 1 / share, rtol=1e-5)
        np.testing.assert_array_equal(hidden.numpy()[~is_hidden], noisy[~is_hidden])
        steps = [(y, x) for y in range(-2, 3) for x in range(-2, 3)]
        moved = [np.roll(noisy, step, axis=(1, 2))[is_hidden] for step in steps]
        (shift,) = (i for i in range(25) if np.array_equal(moved[i], hidden.numpy()[is_hidden]))
        shifts.add(steps[shift])
    assert len(shifts) > 20 and (0, 0) not in shifts  # with (0, 0), nothing would be hidden


@pytest.mark.quick
def test_the_loss_is_of_hidden_pixels_alone(denoiser):
    """Which have a mean weight of 1, so that learning rates mean what they mean otherwise."""
    for channels in (1, 3):
        target = RANDOM.random((2, 8, 8, channels)).astype(np.float32)
        weights = np.zeros((2, 8, 8), np.float32)
        weights[:, 3, 5] = 64
        logits = RANDOM.normal(size=target.shape).astype(np.float32)
        _, model = denoiser.build_denoiser(np.uint8(255 * target), 1e-3)
        found = model.compute_loss(y=target, y_pred=logits, sample_weight=weights)
        x, p = target[:, 3, 5], 1 / (1 + np.exp(-logits[:, 3, 5]))
        expected = -x * np.log(p) - (1 - x) * np.log(1 - p) if channels == 1 else (x - p) ** 2
        assert float(found) == pytest.approx(expected.mean(), rel=1e-4)


@pytest.mark.quick
def test_hidden_errors_by_numpy(denoiser):
    """Of a model that gives 0.5 everywhere, and of medians of eight neighbors."""
    images = RANDOM.integers(0, 256, (6, 16, 20, 3), np.uint8)

    def hide(batch, seed):
        return denoiser.noisy_batch(batch, seed, "blind-spot", [0.2])

    dataset = denoiser.eval_batches(images, 3, "test", 4).map(hide)
    found = denoiser.evaluate_hidden(lambda x: 0 * x + 0.5, dataset)
    errors, medians = [], []
    for _, noisy, weights in dataset.as_numpy_iterator():
        for n, y, x in zip(*np.nonzero(weights), strict=True):
            window = [
                noisy[n, (y + dy) % 16, (x + dx) % 20]
                for dy in (-1, 0, 1)
                for dx in (-1, 0, 1)
                if dy or dx
            ]
            errors.append(np.mean((noisy[n, y, x] - 0.5) ** 2))
            medians.append(np.mean((noisy[n, y, x] - np.median(window, axis=0)) ** 2))
    assert found["hidden_mse"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert found["median_mse"] == pytest.approx(np.mean(medians), rel=1e-5)
    assert found["max_noise"] == pytest.approx(np.sqrt(np.mean(errors)), rel=1e-5)


@pytest.mark.quick
def test_one_share_between_0_and_1(denoiser):
    def choose(*words, is_paired=False):
        options = denoiser.parse_options(["--corruption", "blind-spot", *words])
        return denoiser.choose_noise(options, is_paired)

    assert choose() == choose(is_paired=True) == ("blind-spot", [0.05])
    assert choose("--noise", "0.2") == ("blind-spot", [0.2])
    for levels in (["0.1", "0.2"], ["1.5"]):
        with pytest.raises(denoiser.InputError, match="--noise must be"):
            choose("--noise", *levels)


@pytest.mark.quick
def test_some_test_pixels_must_be_hidden(denoiser, tmp_path):
    """Otherwise the reported error would be that of no pixel at all."""
    np.save(tmp_path / "few.npy", RANDOM.integers(0, 256, (20, 12, 16), np.uint8))
    words = ["--data", "few.npy", "--corruption", "blind-spot", "--noise", 0.001]
    with pytest.raises(denoiser.InputError, match=r"must hide 10 pixels or more .* found 0\.4"):
        trained_here(denoiser, *words, cwd=tmp_path)
    assert not (tmp_path / "models").exists()


@pytest.fixture(scope="module")
def noisy_digits(denoiser):
    """Clean and noisy digits, uint8: noise of 0.1 around gray, so that little is clipped."""
    clean = np.concatenate(mnist(denoiser, 2400)[:3])
    clean = np.uint8(64 + clean // 2)
    noise = 25.5 * np.random.default_rng(1).normal(size=clean.shape)
    return clean, np.uint8(np.clip(np.rint(clean + noise), 0, 255))


WORDS = ("--data", "noisy.npz", "--corruption", "blind-spot", "--batch-size", 16, "--epochs", 3)


def test_noisy_images_alone_are_enough(denoiser, noisy_digits, tmp_path):
    """It finds what the noise is; clean test images serve to measure, and for nothing else."""
    clean, noisy = noisy_digits
    ends = []
    for folder, test in (("alone", noisy[2000:]), ("measured", clean[2000:])):
        place = tmp_path / folder
        place.mkdir()
        arrays = {"x_train": noisy[:2000], "x_test": test}
        if folder == "measured":
            arrays["x_test_noisy"] = noisy[2000:]
        np.savez(place / "noisy.npz", **arrays)
        printed = trained_here(denoiser, *WORDS, cwd=place, plot=True)
        model = place / MODELS[DENOISER]
        ends.append(json.loads((model / "metrics.json").read_text()))
        weights = keras.models.load_model(model / "model.keras").get_weights()
        ends[-1]["weights"] = weights
        assert "hidden MSE" in printed and ("SSIM" in printed) == (folder == "measured")
    alone, measured = ends
    for one, other in zip(alone.pop("weights"), measured.pop("weights"), strict=True):
        np.testing.assert_array_equal(one, other)
    # 22.96 dB was seen here, of 20.05 dB before
    assert measured["psnr"] > measured["noisy_psnr"] + 2 and "psnr" not in alone
    assert alone["hidden_mse"] == measured["hidden_mse"] < alone["median_mse"]
    assert 0.1 < alone["max_noise"] < 0.12
    Image.fromarray(noisy[0, ..., 0]).save(tmp_path / "noisy.png")
    words = ("noisy.png", "--output", "out", "--model-dir", place / MODELS[DENOISER])
    worked("denoise_pictures", *words, cwd=tmp_path)
    model = keras.models.load_model(place / MODELS[DENOISER] / "model.keras")
    denoised = model(noisy[:1] / np.float32(255)).numpy()[0, ..., 0]
    mixed = 0.95 * 255 * denoised + 0.05 * noisy[0, ..., 0]
    np.testing.assert_allclose(np.asarray(Image.open(tmp_path / "out/noisy.png")), mixed, atol=1)


def test_of_pairs_the_noisy_images_alone_are_learned_from(denoiser, noisy_digits, tmp_path):
    """Zeros in place of the clean training images give the same weights."""
    clean, noisy = noisy_digits
    weights = []
    for folder, targets in (("pairs", clean), ("zeros", 0 * clean + 2)):
        place = tmp_path / folder
        place.mkdir()
        pairs = {"x_train": targets[:500], "x_train_noisy": noisy[:500]}
        np.savez(place / "noisy.npz", **pairs)
        trained_here(denoiser, *WORDS[:-1], 1, cwd=place)
        model = keras.models.load_model(place / MODELS[DENOISER] / "model.keras")
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
