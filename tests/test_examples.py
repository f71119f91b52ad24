"""Picture files in and out: names, sizes, formats, and nothing overwritten unless asked to."""

import json
import shutil
from types import SimpleNamespace

import keras  # here, because it sets variables that later commands would get
import numpy as np
import pytest
import skimage
from conftest import DENOISER, MODELS, refused, trained
from PIL import Image, ImageCms
from running_examples import example, module, ran, worked

SUFFIXES = ("png", "jpg", "bmp", "gif")


def draw(path, size=(12, 10), mode="L", seed=0):
    """Write a picture of random pixels, (width, height); return its pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def arrays_of(path):
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of pictures, the data set that it becomes, and models trained on that."""
    place = tmp_path_factory.mktemp("place é")
    for index in range(40):
        path = place / "photos" / "ab"[index % 2] / f"{index:02}.{SUFFIXES[index % 4]}"
        draw(path, mode="RGB", seed=index)
    draw(place / "photos" / "b" / "._02.png")  # as macOS leaves them behind
    (place / "photos" / "notes.txt").write_text("no picture")
    ran("prepare_data", "photos", "--output", "photos.npz", cwd=place)
    trained(DENOISER, "--data", "photos.npz", "--epochs", 1, cwd=place)
    return place


def test_a_folder_becomes_a_data_set(place):
    arrays = arrays_of(place / "photos.npz")
    assert arrays["x_train"].shape == (40, 10, 12, 3)
    assert sorted(arrays["y_train"]) == ["a"] * 20 + ["b"] * 20
    assert len(set(arrays["y_train"][:8])) == 2  # in random order
    expected = np.random.default_rng(0).integers(0, 256, (10, 12, 3), dtype=np.uint8)  # 00.png
    same = [(image == expected).all() for image in arrays["x_train"]]
    assert sum(same) == 1 and arrays["y_train"][np.argmax(same)] == "a"
    assert arrays["names_train"][np.argmax(same)] == "a/00.png"
    process = example("prepare_data", "photos", "--output", "photos.npz", cwd=place)
    refused(process, "photos.npz exists; --force overwrites it")


def test_denoised_pictures_keep_size_and_name(place, tmp_path):
    draw(tmp_path / "in" / "sub" / "b.gif", (40, 30))
    frame = Image.new("L", (40, 30))
    with Image.open(tmp_path / "in" / "sub" / "b.gif") as first:
        first.save(tmp_path / "in" / "sub" / "b.gif", save_all=True, append_images=[frame])
    pixels = draw(tmp_path / "in" / "a.png", (12, 10), "RGB")
    draw(tmp_path / "c.jpeg", (12, 10))
    words = [tmp_path / "in", tmp_path / "c.jpeg", "--output", tmp_path / "out"]
    text = ran("denoise_pictures", *words, cwd=place)
    assert "1 files have several pages or frames; the first of each is used" in text
    sizes = {}
    for path in (tmp_path / "out").rglob("*.*"):
        with Image.open(path) as picture:
            sizes[str(path.relative_to(tmp_path / "out"))] = (picture.format, picture.size)
    assert sizes == {
        "a.png": ("PNG", (12, 10)), "sub/b.png": ("PNG", (40, 30)), "c.png": ("PNG", (12, 10))
    }  # fmt: skip

    model = keras.models.load_model(place / MODELS[DENOISER] / "model.keras")
    padded = np.pad(pixels, [(0, 2), (0, 0), (0, 0)], mode="reflect")  # 12 x 10 to 12 x 12
    expected = np.rint(model(padded[None] / 255).numpy()[0, :10] * 255)
    found = np.asarray(Image.open(tmp_path / "out" / "a.png")).astype(int)
    assert np.abs(found - expected).max() <= 1
    page = np.random.default_rng(0).integers(0, 256, (150, 210, 3), dtype=np.uint8)
    denoise = module("denoise_pictures").denoise
    tiles, whole = (denoise(model, page, tile).astype(int) for tile in (64, 1024))
    assert np.abs(tiles - whole).max() <= 1 and whole.std() > 0


def test_denoising_goes_on_where_it_was(place, tmp_path):
    """Pictures that exist are skipped, and an output folder in the input is not read."""
    for index in range(3):
        draw(tmp_path / "in" / f"{index}.png", seed=index)
    out = tmp_path / "in" / "out"
    words = [tmp_path / "in", "--output", out]
    worked("denoise_pictures", *words, cwd=place)
    first = (out / "0.png").read_bytes()
    (out / "0.png").write_bytes(b"older")
    (out / "1.png").unlink()
    text = worked("denoise_pictures", *words, cwd=place)
    assert "skipped 2 of 3 pictures" in text and text.count("wrote ") == 1
    assert (out / "0.png").read_bytes() == b"older" and (out / "1.png").exists()
    worked("denoise_pictures", *words, "--force", cwd=place)
    assert (out / "0.png").read_bytes() == first
    assert sorted(path.name for path in out.rglob("*")) == ["0.png", "1.png", "2.png"]


def test_denoised_pictures_of_one_name(place, tmp_path):
    for suffix in ("png", "jpg"):
        draw(tmp_path / "in" / f"a.{suffix}")
    words = [tmp_path / "in", "--output", tmp_path / "out"]
    text = worked("denoise_pictures", *words, cwd=place)
    assert f"a.jpg is written as {tmp_path / 'out' / 'a.jpg.png'}" in text
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.jpg.png", "a.png"]
    draw(tmp_path / "more" / "a.png")
    words = [tmp_path / "in", tmp_path / "more", "--output", tmp_path / "new"]
    process = example("denoise_pictures", *words, cwd=place)
    refused(process, "names must differ, found ", "in/a.png and ", "more/a.png")
    (tmp_path / "none").mkdir()
    words = [tmp_path / "none", "--output", tmp_path / "new"]
    refused(example("denoise_pictures", *words, cwd=place), "must be pictures, found none in")
    words = [tmp_path / "in", "--output", tmp_path / "in"]
    refused(example("denoise_pictures", *words, cwd=place), "must be another folder")


def test_denoised_pictures_keep_resolution_and_profile(place, tmp_path):
    """Of PNG, JPEG and TIFF files; a profile only with the channels that it is for."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = draw(tmp_path / "a.png", (24, 20), "RGB")
    for suffix in ("png", "jpg", "tif"):
        path = tmp_path / "in" / f"{suffix}.{suffix}"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path, dpi=(300, 300), icc_profile=profile)
    worked("denoise_pictures", tmp_path / "in", "--output", tmp_path / "out", cwd=place)
    for path in (tmp_path / "out").iterdir():
        with Image.open(path) as picture:
            assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.1)
            assert picture.info["icc_profile"] == profile
    page = SimpleNamespace(info={"dpi": (300, 300), "icc_profile": profile})
    kept = module("denoise_pictures").kept_info
    assert kept(page, "L") == {"dpi": (300, 300)} and kept(page, "RGB") == page.info


def test_the_range_of_the_training_is_used_again(place, tmp_path):
    """Values of 16 bits are scaled as metrics.json says, whatever the pictures have."""
    model = tmp_path / "model"
    shutil.copytree(place / MODELS[DENOISER], model)
    settings = json.loads((model / "metrics.json").read_text())
    (model / "metrics.json").write_text(json.dumps(settings | {"pixel_range": [100, 4000]}))
    deep = np.random.default_rng(0).integers(100, 1000, (12, 16)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    scaled = np.uint8(np.rint((deep - 100.0) / 3900 * 255))
    Image.fromarray(scaled).save(tmp_path / "bytes.png")
    for words in (["--model-dir", model], ["--range", 100, 4000, "--model-dir", model]):
        words = [tmp_path / "deep.png", "--output", tmp_path / "out", "--force", *words]
        text = worked("denoise_pictures", *words, cwd=place)
        assert "100 is used as black, 4000 as white" in text
        words = [tmp_path / "bytes.png", "--output", tmp_path / "out", "--force"]
        worked("denoise_pictures", *words, "--range", 0, 255, cwd=place)
        with Image.open(tmp_path / "out" / "deep.png") as one:
            np.testing.assert_array_equal(one, Image.open(tmp_path / "out" / "bytes.png"))


# ---- What does not fit a model -------------------------------------------------------------------


@pytest.mark.quick
def test_what_does_not_fit_is_said():
    """Channels, black and white the other way round, and noise of another level."""
    find = module("denoise_pictures").find_misfits
    camera = skimage.data.camera()[..., None]
    noise = 25.5 * np.random.default_rng(0).normal(size=camera.shape)
    noisy = np.uint8(np.clip(camera + noise, 0, 255))
    about = {"channels": 1, "pixel_mean": 0.45, "corruption": "gaussian", "noise": [0.05, 0.2]}
    assert find(noisy, about) == []
    (text,) = find(np.repeat(noisy, 3, axis=2), about | {"noise": None})
    assert text == "RGB picture, grayscale training images"
    (text,) = find(noisy, about | {"channels": 3})
    assert text == "grayscale picture, RGB training images"
    (text,) = find(noisy, about | {"pixel_mean": 0.95})
    assert "white on black instead of black on white" in text
    for levels, blind in (([0.5], False), ([0.01, 0.03], False), (None, True)):
        changed = {"noise": levels}
        if blind:
            changed = {"corruption": "blind-spot", "noise": [0.05], "max_noise": 0.4}
        (text,) = find(noisy, about | changed)
        assert text.startswith("estimated noise 0.09")  # 0.1, but some of it is clipped
    assert find(noisy, {}) == []  # a model without metrics.json


@pytest.mark.quick
@pytest.mark.parametrize("level", [0.05, 0.1, 0.2])
def test_estimated_noise(level):
    estimate = module("denoise_pictures").estimate_noise
    gray = np.full((200, 300, 1), 0.5)
    noisy = gray + level * np.random.default_rng(0).normal(size=(200, 300, 3))
    assert estimate(np.uint8(255 * noisy.clip(0, 1))) == pytest.approx(level, rel=0.05)


def test_channels_of_models_and_pictures(tmp_path):
    """A grayscale model takes the channels of a picture one by one; gray pictures stay gray."""
    denoise_picture = module("denoise_pictures").denoise_picture
    image = keras.Input((None, None, 1))
    inverse = keras.Model(image, keras.layers.Rescaling(-1, 1)(image))
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    np.testing.assert_array_equal(denoise_picture(inverse, pixels), 255 - pixels)
    image = keras.Input((None, None, 3))
    inverse = keras.Model(image, keras.layers.Rescaling(-1, 1)(image))
    np.testing.assert_array_equal(denoise_picture(inverse, pixels), 255 - pixels)
    np.testing.assert_array_equal(denoise_picture(inverse, pixels[..., :1]), 255 - pixels[..., :1])


def test_the_mean_over_flips():
    """A model that moves a picture to the right gives means of left and right neighbors."""
    image = keras.Input((None, None, 1))
    move = keras.layers.Conv2D(1, (1, 3), padding="same", use_bias=False)
    model = keras.Model(image, move(image))
    move.kernel.assign(np.float32([1, 0, 0]).reshape(1, 3, 1, 1))
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    found = module("denoise_pictures").mean_of_flips(model, pixels)
    expected = pixels[:, :-2] / 2 + pixels[:, 2:] / 2
    np.testing.assert_allclose(found[:, 1:-1], expected, atol=0.5)


def test_noise_of_files(tmp_path):
    for index, level in enumerate((0.05, 0.2)):
        noisy = 0.5 + level * np.random.default_rng(0).normal(size=(100, 100))
        path = tmp_path / "in" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.uint8(255 * noisy.clip(0, 1))).save(path)
    text = worked("denoise_pictures", tmp_path / "in", "--estimate-noise", cwd=tmp_path)
    found = [float(line.split()[-1]) for line in text.splitlines() if ": noise " in line]
    assert found == pytest.approx([0.05, 0.2], rel=0.05)
    assert f"--noise {found[0]:.3f} {found[1]:.3f}" in text
    refused(
        example("denoise_pictures", tmp_path / "in", cwd=tmp_path), "--output DIR must be given"
    )
