"""What people bring: read as they mean it, or refused with a line that says what to do."""

import csv
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from conftest import DENOISER, ROOT, VAE, metrics, refused, run, trained
from PIL import Image
from running_examples import example, worked

DRAW = np.random.default_rng(0).integers
GREY = DRAW(0, 256, (40, 12, 12), dtype=np.uint8)
SMALL = ["--epochs", 1, "--model-dir", "out"]


def arrays_of(path):
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


# ---- Arrays, for both scripts --------------------------------------------------------------------

ADVICE = {  # what an array holds, and what the line says
    "objects": (np.array([GREY, None], dtype=object), "never of Python objects (pickle)"),
    "flat": (GREY.reshape(40, -1), "flat images, IMAGES.reshape(-1, HEIGHT, WIDTH)"),
    "channels_first": (DRAW(0, 256, (40, 3, 12, 12), dtype=np.uint8), "transpose(0, 2, 3, 1)"),
    "four_channels": (DRAW(0, 256, (40, 12, 12, 4), dtype=np.uint8), "IMAGES[..., :3]"),
    "two_channels": (DRAW(0, 256, (40, 12, 12, 2), dtype=np.uint8), "IMAGES[..., :1]"),
    "zero_and_one": (np.uint8(GREY > 99), "values 0 to 1, IMAGES.astype(bool) or IMAGES * 255"),
    "integers": (GREY.astype(int), "int64 (40, 12, 12): values 0 to 255, IMAGES.astype('uint8')"),
    "sixteen_bits": (np.uint16(GREY) * 16, "values 0 to 4080, (IMAGES - LOW) / (HIGH - LOW)"),
    "to_255": (GREY.astype(np.float32), "values 0 to 255, IMAGES / 255"),
    "to_16": (np.round(GREY / 16), "values 0 to 16, (IMAGES - LOW) / (HIGH - LOW)"),
    "minus_one": (np.float32(GREY / 127.5 - 1), "values -1 to 1, (IMAGES + 1) / 2"),
    "not_finite": (np.where(GREY > 9, GREY / 255, np.nan), "not all finite"),
    "text": (np.full(40, "a"), "of real numbers"),
    "complex": (GREY * 1j, "of real numbers"),
}


@pytest.mark.parametrize("name", ADVICE)
def test_arrays_that_are_refused(name, vae, tmp_path):
    array, advice = ADVICE[name]
    np.savez(tmp_path / "x.npz", x_train=array)
    with pytest.raises(vae.InputError) as caught:
        vae.load_images(str(tmp_path / "x.npz"))
    assert advice in str(caught.value) and "x_train" in str(caught.value)


def test_arrays_that_are_accepted(vae, tmp_path):
    """An .npy file, an .npz file of one array of any name, and images of bool."""
    np.save(tmp_path / "x.npy", GREY)
    np.savez(tmp_path / "one.npz", GREY)
    np.savez(tmp_path / "bool.npz", x_train=GREY > 99)
    everything = {*map(bytes, GREY)}
    for name in ("x.npy", "one.npz"):
        parts = vae.load_images(str(tmp_path / name))[:3]
        assert {*map(bytes, np.concatenate(parts))} == everything
    parts = vae.load_images(str(tmp_path / "bool.npz"))[:3]
    assert {*np.concatenate(parts).ravel()} == {0, 255}


def test_dark_images_are_used_with_a_line(vae, tmp_path, capsys):
    """They may be of another range than 0 to 255."""
    np.savez(tmp_path / "x.npz", x_train=GREY // 16, x_test=GREY)
    train, *_ = vae.load_images(str(tmp_path / "x.npz"))
    assert {*map(bytes, train)} < {*map(bytes, GREY // 16)}
    assert "x_train is uint8 (40, 12, 12): dark images, of at most 15" in capsys.readouterr().out


def test_grey_in_three_channels_is_used_with_a_line(vae, tmp_path, capsys):
    """Nothing is said of colour, even if a single value has it."""
    images = np.repeat(GREY[..., np.newaxis], 3, axis=3)
    line = "x.npz: x_train is grey; IMAGES[..., :1] would train faster"
    np.savez(tmp_path / "x.npz", x_train=images)
    train, *_ = vae.load_images(str(tmp_path / "x.npz"))
    assert train.shape[1:] == (12, 12, 3)
    assert line in capsys.readouterr().out
    images[39, 11, 11, 2] ^= 1
    np.savez(tmp_path / "x.npz", x_train=images)
    vae.load_images(str(tmp_path / "x.npz"))
    assert "grey" not in capsys.readouterr().out


def test_rounding_is_no_other_range(vae, tmp_path):
    """Floats a little below 0 or above 1 are used; the advice for noisy images is to clip."""
    floats = np.float32(GREY / 255) * np.float32(1 + 5e-7) - np.float32(2e-7)
    assert floats.min() < 0 and floats.max() > 1
    np.savez(tmp_path / "x.npz", x_train=floats)
    parts = vae.load_images(str(tmp_path / "x.npz"))[:3]
    assert {*map(bytes, np.concatenate(parts))} == {*map(bytes, GREY)}
    arrays = {"x_train": floats, "x_train_noisy": floats * 1.001}
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(vae.InputError, match="noisy images: LOW and HIGH of the clean ones"):
        vae.load_images(str(tmp_path / "x.npz"), suffix="_noisy")


def test_labels_of_objects_are_named(vae, tmp_path):
    labels = np.array(["a", None] * 20, dtype=object)
    np.savez(tmp_path / "x.npz", x_train=GREY, y_train=labels)
    with pytest.raises(vae.InputError, match=r"y_train cannot be read.*never of Python objects"):
        vae.load_images(str(tmp_path / "x.npz"))


def test_validation_images_of_the_users_own(vae, tmp_path):
    arrays = {"x_train": GREY[:25], "x_val": GREY[25:32], "x_test": GREY[32:]}
    np.savez(tmp_path / "x.npz", **arrays)
    parts = vae.load_images(str(tmp_path / "x.npz"))[:3]
    for part, expected in zip(parts, arrays.values(), strict=True):
        assert {*map(bytes, part)} == {*map(bytes, expected)}


def test_own_images_may_be_sorted_by_class(vae, tmp_path):
    """Validation, test and --limit take images of all classes, also beside an x_test."""
    labels = np.repeat(np.arange(4, dtype=np.uint8), 60)
    images = np.repeat(labels * 60 + 10, 64).reshape(240, 8, 8)
    np.savez(tmp_path / "x.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    train, validation, test, test_labels = vae.load_images(str(tmp_path / "x.npz"), 60)
    for part in (train, validation, test):
        assert len(np.unique(part)) == 4
    assert len(test) == 12
    np.testing.assert_array_equal(test[:, 0, 0, 0], test_labels * 60 + 10)


def test_labels_stay_with_their_images(vae, tmp_path):
    """Images and labels are shuffled, one after the other."""
    images = np.repeat(np.arange(100, dtype=np.uint8), 64).reshape(100, 8, 8) + 2
    np.savez(tmp_path / "x.npz", x_train=images, y_train=np.arange(100) + 2)
    _, _, test, labels = vae.load_images(str(tmp_path / "x.npz"))
    assert len(test) == 10
    np.testing.assert_array_equal(test[:, 0, 0, 0], labels)


@pytest.mark.parametrize("name", ["x.csv", "x.h5", "train-images-idx3-ubyte", "x.gz", "pictures"])
def test_files_of_other_kinds(name, tmp_path):
    """The script names the example that reads the file."""
    contents = {
        "x.csv": b"1,2,3\n4,5,6\n",
        "x.h5": b"\x89HDF\r\n\x1a\n" + bytes(100),
        "train-images-idx3-ubyte": bytes([0, 0, 8, 3, 0, 0, 0, 9]),
        "x.gz": b"\x1f\x8b" + bytes(9),
    }
    if name == "pictures":
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(contents[name])
    process = run(VAE, "--data", name, cwd=tmp_path)
    refused(process, f"--data {name}: ", "examples/pictures_to_npz.py makes one of folders")


# ---- Training ------------------------------------------------------------------------------------


def test_constant_images_have_finite_metrics(tmp_path):
    np.save(tmp_path / "blank.npy", np.full((60, 12, 12), 255, np.uint8))
    trained(DENOISER, "--data", "blank.npy", "--epochs", 30, "--model-dir", "out", cwd=tmp_path)
    values = [row.split(",")[1:] for row in (tmp_path / "out/history.csv").read_text().split()[1:]]
    assert np.isfinite(np.array(values, float)).all() and len(values) == 30
    assert all(np.isfinite(x) for x in metrics(tmp_path / "out").values() if type(x) is float)


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


def test_the_denoiser_trains_on_pairs(pairs, denoiser):
    """It adds no noise, which the PSNR of the noisy images shows, and refuses to add any."""
    words = ["--data", "pairs.npz", *SMALL]
    process = trained(DENOISER, *words, cwd=pairs)
    assert "pairs.npz has noisy images of its own" in process.stdout
    assert "\nimages (12, 12, 1): " in process.stdout  # not the two channels of a pair
    clean, noisy = np.split(denoiser.load_pairs(str(pairs / "pairs.npz"), None)[2] / 255, 2, axis=3)
    expected = np.mean(-10 * np.log10(np.mean((clean - noisy) ** 2, axis=(1, 2, 3))))
    assert metrics(pairs / "out")["noisy_psnr"] == pytest.approx(expected, rel=1e-4)
    for more in (["--noise", 0.5], ["--corruption", "masking"]):
        process = run(DENOISER, *words, *more, cwd=pairs)
        refused(process, "pairs.npz has noisy images of its own; accepted: neither --noise nor")
    trained(VAE, "--data", "pairs.npz", "--epochs", 1, "--model-dir", "vae", cwd=pairs)


def test_pairs_that_do_not_match(pairs, denoiser, tmp_path):
    arrays = arrays_of(pairs / "pairs.npz")
    one_less = arrays | {"x_train_noisy": arrays["x_train_noisy"][:-1]}
    no_noisy_test = arrays | {"x_test": arrays["x_train"]}
    no_clean_validation = arrays | {"x_val_noisy": arrays["x_train_noisy"]}
    reasons = [
        (one_less, "accepted: one of the same shape for each"),
        (no_noisy_test, "has one of x_test and x_test_noisy; accepted: both or neither"),
        (no_clean_validation, "has one of x_val and x_val_noisy"),
    ]
    for wrong, reason in reasons:
        np.savez(tmp_path / "x.npz", **wrong)
        for limit in (None, 10):
            with pytest.raises(denoiser.InputError, match=reason):
                denoiser.load_pairs(str(tmp_path / "x.npz"), limit)
    arrays["x_test_noisy"] = arrays.pop("x_train_noisy")
    np.savez(tmp_path / "x.npz", **arrays)
    words = ["--data", str(tmp_path / "x.npz"), "--model-dir", str(tmp_path / "out")]
    options = denoiser.parse_options(words)
    with pytest.raises(denoiser.InputError, match="has one of x_train and x_train_noisy"):
        denoiser.main(options)


def test_a_short_run_says_so(tmp_path):
    np.save(tmp_path / "x.npy", GREY)
    process = trained(VAE, "--data", "x.npy", "--epochs", 2, "--model-dir", "out", cwd=tmp_path)
    assert "a short run of 2 steps, where the digits take 10,308" in process.stdout
    assert "--epochs 10308" in process.stdout


MEMORY = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import VariationalAutoEncoder_tf2 as vae
vae.main(vae.parse_options(sys.argv[2:]))
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_of_large_arrays(tmp_path):
    """Images of 400 MB take at most 1.3 times their size more than few do."""
    peaks = []
    for count in (100, 32_000):
        few = DRAW(0, 256, (100, 64, 64, 3), dtype=np.uint8)
        np.save(tmp_path / "x.npy", np.resize(few, (count, 64, 64, 3)))
        words = ["--data", "x.npy", "--limit", "100", "--epochs", "1", "--model-dir", "out"]
        command = [sys.executable, "-c", MEMORY, str(ROOT), *words]
        process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
        peaks.append(int(process.stdout.split()[-1]) * 1024)  # Linux counts in KiB
    assert peaks[1] - peaks[0] < 1.3 * 32_000 * 64 * 64 * 3


@pytest.mark.parametrize("script", [DENOISER, VAE])
def test_arrays_that_no_memory_holds(script, tmp_path):
    shape = (300_000, 1024, 1024, 3)
    with (tmp_path / "large.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + math.prod(shape))  # a hole, which takes no space on the disk
    process = run(script, "--data", "large.npy", cwd=tmp_path)
    refused(process, "--data large.npy: not enough memory; accepted: fewer images; ")


# ---- Examples with own pictures: RGB, oblong, 16 dimensions, no labels and no x_test -------------


def fill(folder, count=30, array=None, suffix="png"):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        pixels = GREY[index] if array is None else array[index]
        Image.fromarray(pixels).save(folder / f"{index}.{suffix}")


@pytest.fixture(scope="module")
def colour(tmp_path_factory):
    """A folder with own.npz, pictures and models of them; one picture is of another kind."""
    place = tmp_path_factory.mktemp("colour")
    images = np.empty((60, 64, 48, 3), np.uint8)
    for image in images:  # a dark and a bright half, of nearly the same colours each time
        image[:32] = DRAW(0, 40, 3)
        image[32:] = DRAW(216, 256, 3)
    np.savez(place / "own.npz", x_train=images)
    fill(place / "photos", 4, array=images)
    Image.fromarray(DRAW(0, 256, (64, 48, 3), dtype=np.uint8)).save(place / "photos" / "odd.png")
    words = ["--data", "own.npz", "--epochs", 20]
    trained(VAE, *words, "--latent-dim", 16, "--model-dir", "own/vae", cwd=place)
    trained(DENOISER, *words, "--model-dir", "own/denoiser", cwd=place)
    return place


@pytest.mark.parametrize("words", [
    "compare_dimensions own/vae --data own.npz --images-dir new",
    "denoise_pictures photos --output new --model-dir own/denoiser",
    "encode_images own.npz --output new/codes.npz --model-dir own/vae",
    "generate_digits --count 2 --output new --model-dir own/vae",
    "latent_tour --from photos/0.png --to photos/1.png --model-dir own/vae --images-dir new",
])  # fmt: skip
def test_examples_run_with_own_pictures(words, colour):
    assert "wrote new/" in worked(*words.split(), cwd=colour)


@pytest.mark.parametrize("words, text", [
    ("codes_as_features --data own.npz --model-dir own", "models with 2 latent dimensions"),
    ("denoise_page --model-dir own/denoiser", "a model of grey images"),
    ("denoiser_page --model-dir own/denoiser", "images of shape (28, 28, 1)"),
    ("latent_explorer --data own.npz --model-dir own/vae", "models with 2 latent dimensions"),
    ("latent_tour --data own.npz --model-dir own/vae", "models with 2 latent dimensions"),
    ("latent_tour --from photos/0.png --model-dir own/vae", "--from and --to"),
    ("odd_ones_out --model-dir own", "denoiser/model.keras: accepted: a model of grey images"),
    ("pretraining --model-dir own", "denoiser/encoder.keras: accepted: a model of grey images"),
    ("odd_ones_out --false-alarms 1 --model-dir own", "--false-alarms 1.0: accepted"),
])  # fmt: skip
def test_examples_say_what_they_need(words, text, colour):
    refused(example(*words.split(), cwd=colour), text)


def test_odd_pictures_and_images_are_marked(colour, vae):
    words = ["--model-dir", "own", "--images-dir", "new"]
    text = worked("odd_ones_out", "--pictures", "photos", *words, cwd=colour)
    assert "from 4 validation images" in text
    assert "too few" in text  # for one false alarm in a hundred
    threshold = float(text.split("threshold: ")[1].split()[0])
    with (colour / "new" / "odd_ones_out.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = {row["image"]: float(row["negative IWAE bound, nats"]) for row in rows}
    odd = {row["image"] for row in rows if row["odd"] == "True"}
    assert max(scores, key=scores.get) == "photos/odd.png"
    assert scores["photos/odd.png"] > 1.5 * threshold
    assert odd == {name for name, score in scores.items() if score > threshold} and len(odd) < 5
    worked("odd_ones_out", "--data", "own.npz", "--false-alarms", 0.5, *words, cwd=colour)
    with (colour / "new" / "odd_ones_out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60 and rows[7]["image"] == "x_train[7]"
    settings = json.loads((colour / "own" / "vae" / "metrics.json").read_text())
    assert settings["data"] == "own.npz"


def test_the_images_of_the_training_are_needed_for_a_threshold(colour, tmp_path):
    words = ["--pictures", colour / "photos", "--model-dir", colour / "own"]
    refused(example("odd_ones_out", *words, cwd=tmp_path), "trained on", "own.npz")
    np.savez(tmp_path / "own.npz", x_train=GREY)
    reason = "own.npz has images (12, 12, 1), the VAE's were (64, 48, 3); accepted: the file that"
    refused(example("odd_ones_out", *words, cwd=tmp_path), reason)


def test_masks_are_not_denoised_as_black_pictures(colour, tmp_path):
    fill(tmp_path / "masks", 2, array=np.uint8(GREY > 99))
    words = [tmp_path / "masks", "--output", "masks", "--model-dir", "own/denoiser"]
    refused(example("denoise_pictures", *words, cwd=colour), "--range 0 1")
    worked("denoise_pictures", *words, "--range", 0, 1, cwd=colour)
    assert len(list((colour / "masks").iterdir())) == 2
