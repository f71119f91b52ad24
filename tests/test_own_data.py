"""What people bring: read as they mean it, or refused with a line that says what to do."""

import math
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, load_file, metrics, refused, trained_here
from PIL import Image
from running_examples import example, worked

DRAW = np.random.default_rng(0).integers
GREY = DRAW(0, 256, (40, 12, 12), dtype=np.uint8)
SMALL = ["--epochs", 1, "--model-dir", "out"]
QUICK = pytest.mark.quick


def arrays_of(path):
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


# ---- Splits, for both scripts --------------------------------------------------------------------


@QUICK
def test_validation_images_of_the_users_own(vae, tmp_path):
    arrays = {"x_train": GREY[:25], "x_val": GREY[25:32], "x_test": GREY[32:]}
    np.savez(tmp_path / "x.npz", **arrays)
    parts = load_file(vae, tmp_path / "x.npz")[:3]
    for part, expected in zip(parts, arrays.values(), strict=True):
        assert {*map(bytes, part)} == {*map(bytes, expected)}


@QUICK
def test_own_images_may_be_sorted_by_class(vae, tmp_path):
    """Validation, test and --limit take images of all classes, also with an x_test."""
    labels = np.repeat(np.arange(4, dtype=np.uint8), 60)
    images = np.repeat(labels * 60 + 10, 64).reshape(240, 8, 8)
    np.savez(tmp_path / "x.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    train, validation, test, test_labels = load_file(vae, tmp_path / "x.npz", 60)
    for part in (train, validation, test):
        assert len(np.unique(part)) == 4
    assert len(test) == 12
    np.testing.assert_array_equal(test[:, 0, 0, 0], test_labels * 60 + 10)


@QUICK
def test_labels_stay_with_their_images(vae, tmp_path):
    """Images and labels are shuffled, one after the other."""
    images = np.repeat(np.arange(100, dtype=np.uint8), 64).reshape(100, 8, 8) + 2
    np.savez(tmp_path / "x.npz", x_train=images, y_train=np.arange(100) + 2)
    _, _, test, labels = load_file(vae, tmp_path / "x.npz")
    assert len(test) == 10
    np.testing.assert_array_equal(test[:, 0, 0, 0], labels)


# ---- Training ------------------------------------------------------------------------------------


def test_constant_images_have_finite_metrics(denoiser, tmp_path):
    np.save(tmp_path / "blank.npy", np.full((60, 12, 12), 255, np.uint8))
    words = ["--data", "blank.npy", "--epochs", 30, "--model-dir", "out"]
    trained_here(denoiser, *words, cwd=tmp_path)
    values = [row.split(",")[1:] for row in (tmp_path / "out/history.csv").read_text().split()[1:]]
    assert np.isfinite(np.array(values, float)).all() and len(values) == 30
    assert all(np.isfinite(x) for x in metrics(tmp_path / "out").values() if type(x) is float)


@QUICK
def test_a_psnr_without_error_is_finite(denoiser):
    clean = np.ones((2, 8, 8, 1), np.float32)
    logits = np.full((2, 8, 8, 1), 100, np.float32)
    np.testing.assert_allclose(denoiser.psnr(clean, logits), denoiser.MAX_PSNR)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A folder with pairs.npz, from two folders of pictures."""
    place = tmp_path_factory.mktemp("pairs")
    for folder, low in (("clean", 0), ("dirty", 100)):
        (place / folder / "a").mkdir(parents=True)
        for index in range(30):
            pixels = np.clip(GREY[index], low, 255)
            Image.fromarray(pixels).save(place / folder / "a" / f"{index}.png")
    words = ["clean", "--noisy", "dirty", "--output", "pairs.npz"]
    worked("prepare_data", *words, cwd=place)
    return place


def test_both_scripts_train_on_pairs(pairs, denoiser, vae):
    """The denoiser adds no noise, as the PSNR of the noisy images shows, and refuses to add any."""
    words = ["--data", "pairs.npz", *SMALL]
    text = trained_here(denoiser, *words, cwd=pairs, plot=True)
    assert "\nimages (12, 12, 1): " in text  # not the two channels of a pair
    arrays = denoiser.load_arrays(str(pairs / "pairs.npz"))
    clean, noisy = np.split(denoiser.load_pairs(arrays, "pairs.npz", None)[2] / 255, 2, axis=3)
    expected = np.mean(-10 * np.log10(np.mean((clean - noisy) ** 2, axis=(1, 2, 3))))
    results = metrics(pairs / "out")
    assert results["noisy_psnr"] == pytest.approx(expected, rel=1e-4)
    assert (results["corruption"], results["noise"], results["channels"]) == ("paired", None, 1)
    for more in (["--noise", 0.5], ["--corruption", "masking"]):
        reason = "--noise and --corruption must be left out with paired noisy images"
        with pytest.raises(denoiser.InputError, match=reason):
            trained_here(denoiser, *words, *more, cwd=pairs)
    trained_here(vae, "--data", "pairs.npz", "--epochs", 1, "--model-dir", "vae", cwd=pairs)


def test_images_of_an_array_of_any_kind(vae, tmp_path):
    """What prepare_data.py writes has the same images, for a script."""
    np.save(tmp_path / "a.npy", np.moveaxis(GREY[:, 1:], 0, -1) / 255)
    words = ["a.npy", "--shape", 11, 12, "--output", "x.npz", "--range", 0, 1]
    worked("prepare_data", *words, cwd=tmp_path)
    parts = load_file(vae, tmp_path / "x.npz")[:3]
    expected = sorted(map(bytes, GREY[:, 1:]))
    assert sorted(map(bytes, np.concatenate(parts))) == expected


def test_pairs_that_do_not_match(pairs, denoiser, tmp_path):
    arrays = arrays_of(pairs / "pairs.npz")
    one_less = arrays | {"x_train_noisy": arrays["x_train_noisy"][:-1]}
    no_noisy_test = arrays | {"x_test": arrays["x_train"]}
    no_clean_validation = arrays | {"x_val_noisy": arrays["x_train_noisy"]}
    reasons = [
        (one_less, "noisy images must be"),
        (no_noisy_test, "must have both or neither of x_test and x_test_noisy, found one"),
        (no_clean_validation, "must have both or neither of x_val and x_val_noisy"),
    ]
    for wrong, reason in reasons:
        for limit in (None, 20):
            with pytest.raises(denoiser.InputError, match=reason):
                denoiser.load_pairs(dict(wrong), "x.npz", limit)
    arrays["x_test_noisy"] = arrays.pop("x_train_noisy")
    np.savez(tmp_path / "x.npz", **arrays)
    words = ["--data", str(tmp_path / "x.npz"), "--model-dir", str(tmp_path / "out")]
    options = denoiser.parse_options(words)
    with pytest.raises(denoiser.InputError, match="both or neither of x_train and x_train_noisy"):
        denoiser.main(options)


MEMORY = """
import sys
sys.path.insert(0, sys.argv[1])
import StackedDenoisingAutoEncoder as script
for path in ("few.npy", "many.npy"):
    words = ["--data", path, "--limit", "100", "--epochs", "1", "--model-dir", path[:-4]]
    script.main(script.parse_options(words))
    print("peak", open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""


def test_memory_of_large_arrays(tmp_path):
    """Images of 400 MB take at most 1.3 times their size more than few do.

    The kernel's VmHWM is of the process alone; ru_maxrss has what the tests took before, too.
    """
    few = DRAW(0, 256, (100, 64, 64, 3), dtype=np.uint8)
    np.save(tmp_path / "few.npy", few)
    np.save(tmp_path / "many.npy", np.resize(few, (32_000, 64, 64, 3)))
    command = [sys.executable, "-c", MEMORY, str(ROOT)]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    peaks = [int(line.split()[1]) for line in process.stdout.splitlines() if "peak" in line]
    assert 0 < (peaks[1] - peaks[0]) * 1024 < 1.3 * 32_000 * 64 * 64 * 3


@QUICK
def test_arrays_that_no_memory_holds(vae, tmp_path):
    shape = (300_000, 1024, 1024, 3)
    with (tmp_path / "large.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + math.prod(shape))  # a hole, which takes no space on the disk
    with pytest.raises(vae.InputError, match=r"large\.npy: .*Unable to allocate"):
        vae.load_arrays(str(tmp_path / "large.npy"))


def fill(folder, count=30, array=None, suffix="png"):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        pixels = GREY[index] if array is None else array[index]
        Image.fromarray(pixels).save(folder / f"{index}.{suffix}")


def test_masks_are_not_denoised_as_black_pictures(colour, tmp_path):
    fill(tmp_path / "masks", 2, array=np.uint8(GREY > 99))
    words = [tmp_path / "masks", "--output", "masks", "--model-dir", "own/denoiser"]
    refused(example("denoise_pictures", *words, cwd=colour), "--range 0 1")
    worked("denoise_pictures", *words, "--range", 0, 1, cwd=colour)
    assert len(list((colour / "masks").iterdir())) == 2
