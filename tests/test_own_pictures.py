"""Own data in, own pictures in and out: folders, sizes, names, and nothing overwritten unasked."""

import os
import re
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
from conftest import DENOISER, MODELS, ROOT, VAE, metrics, run
from PIL import Image

BOTH = pytest.mark.parametrize("script", [DENOISER, VAE])
SUFFIXES = ("png", "jpg", "bmp", "gif")


def draw(path, size=(12, 10), mode="L", seed=0):
    """Write a picture of random blocks, (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of 40 grey pictures in two subfolders, and a file that is none."""
    folder = tmp_path_factory.mktemp("own") / "own pictures é"
    for index in range(40):
        draw(folder / "ab"[index % 2] / f"{index:02}.{SUFFIXES[index % 4]}", seed=index)
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A folder in which both scripts have trained on those pictures."""
    place = tmp_path_factory.mktemp("trained")
    for script in (DENOISER, VAE):
        process = run(script, "train", "--data", folder, "--epochs", 1, cwd=place)
        assert process.returncode == 0, process.stderr
        assert metrics(place / MODELS[script])["data"] == str(folder)
    return place


def command(module, trained, *words):
    """Do in this process what a script does with words behind its name."""
    models = trained / MODELS[f"{module.__name__}.py"]
    words = [str(word) for word in (*words, "--model-dir", models)]
    options = module.parse_command_line(module.commands(), words)
    getattr(module, f"{options.command}_command")(options)


def test_a_folder_is_read_whole_with_its_subfolders_as_labels(folder, vae):
    arrays = vae.read_folder(folder)
    assert arrays["x_train"].shape == (40, 10, 12, 3)  # GIF files come in colours
    assert sorted(arrays["y_train"]) == ["a"] * 20 + ["b"] * 20
    expected = np.random.default_rng(0).integers(0, 256, (10, 12), dtype=np.uint8)
    np.testing.assert_array_equal(arrays["x_train"][0, ..., 0], expected)
    images = vae.load_images(str(folder))
    assert [len(part) for part in images] == [33, 3, 4, 4]
    assert set(images.test_labels) == {"a", "b"}  # the held-out tenth is not the last files
    assert vae.load_images(str(folder), image_size=16).train.shape == (33, 16, 16, 3)


def test_grey_stays_grey_and_sixteen_bits_keep_the_upper_eight(vae, tmp_path):
    grey = draw(tmp_path / "grey.png")
    np.testing.assert_array_equal(vae.read_picture(tmp_path / "grey.png")[..., 0], grey)
    wide = np.random.default_rng(0).integers(0, 2**16, (9, 8), dtype=np.uint16)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    np.testing.assert_array_equal(vae.read_picture(tmp_path / "wide.png")[..., 0], wide >> 8)
    colour = draw(tmp_path / "colour.bmp", mode="RGB")
    np.testing.assert_array_equal(vae.read_picture(tmp_path / "colour.bmp"), colour)


def test_pictures_of_two_sizes(folder, vae, tmp_path):
    draw(tmp_path / "1.png", (12, 10))
    draw(tmp_path / "2.png", (10, 12))
    with pytest.raises(vae.InputError, match=r"2\.png is of 10x12 .* 12x10; .*--image-size"):
        vae.read_folder(tmp_path)
    assert vae.read_folder(tmp_path, image_size=9)["x_train"].shape == (2, 9, 9, 1)


def test_resized_arrays(vae, tmp_path):
    ramp = np.broadcast_to(np.arange(0, 250, 10, dtype=np.uint8), (30, 300, 25)).copy()
    np.savez(tmp_path / "ramp.npz", x_train=ramp)
    images = vae.load_images(str(tmp_path / "ramp.npz"), image_size=50)
    assert images.train.shape[1:] == (50, 50, 1)
    smooth = images.train[0, 25, :, 0].astype(int)
    assert (np.diff(smooth) >= 0).all() and abs(smooth - np.arange(50) * 5).max() < 10


def test_a_photo_is_read_as_the_camera_was_held(vae, tmp_path):
    picture = Image.new("RGB", (30, 20))
    exif = picture.getexif()
    exif[0x0112] = 6  # turned by a quarter
    picture.save(tmp_path / "photo.jpg", exif=exif)
    assert vae.read_picture(tmp_path / "photo.jpg").shape == (30, 20, 3)
    Image.fromarray(np.zeros((20, 30), np.uint16)).save(tmp_path / "scan.png", exif=exif)
    assert vae.read_picture(tmp_path / "scan.png").shape == (30, 20, 1)


def test_denoised_pictures_keep_size_and_name(denoiser, trained, tmp_path):
    draw(tmp_path / "in" / "sub" / "b.gif", (40, 30))
    draw(tmp_path / "in" / "a.png", (12, 10), "RGB")
    draw(tmp_path / "c.jpeg", (12, 10))
    odd = os.fsdecode(b"\xe9.png")  # a name that is not UTF-8
    draw(tmp_path / "in" / odd, (12, 10))
    words = ["denoise", tmp_path / "in", tmp_path / "c.jpeg", "--output", tmp_path / "out"]
    process = run(DENOISER, *words, cwd=trained)
    assert process.returncode == 0, process.stderr
    sizes = {}
    for path in (tmp_path / "out").rglob("*.*"):
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            sizes[str(path.relative_to(tmp_path / "out"))] = picture.size
    assert sizes == {"a.png": (12, 10), "sub/b.png": (40, 30), "c.png": (12, 10), odd: (12, 10)}

    before = (tmp_path / "out" / "c.png").read_bytes()
    (tmp_path / "out" / "a.png").unlink()
    with pytest.raises(denoiser.InputError, match=r"out/.* exists; --force overwrites it"):
        command(denoiser, trained, *words)
    assert not (tmp_path / "out" / "a.png").exists()  # none is written where one is in the way
    (tmp_path / "out" / "c.png").write_bytes(b"")
    command(denoiser, trained, *words, "--force")
    assert (tmp_path / "out" / "c.png").read_bytes() == before


def test_denoising_is_what_the_model_does(denoiser, trained, tmp_path):
    pixels = draw(tmp_path / "a.bmp", (12, 10), "RGB")
    command(denoiser, trained, "denoise", tmp_path / "a.bmp", "--output", tmp_path)
    model = denoiser.keras.models.load_model(trained / MODELS[DENOISER] / "model.keras")
    expected = np.rint(model(pixels[None] / 255).numpy()[0] * 255)
    found = np.asarray(Image.open(tmp_path / "a.png")).astype(int)
    assert np.abs(found - expected).max() <= 1


def test_two_pictures_of_one_name(denoiser, trained, tmp_path):
    draw(tmp_path / "a.png")
    draw(tmp_path / "a.bmp")
    with pytest.raises(denoiser.InputError, match=r"a\.png would be written twice"):
        command(denoiser, trained, "denoise", tmp_path, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_generated_pictures(vae, trained, tmp_path):
    words = ["generate", "--count", 12, "--output", tmp_path / "new"]
    assert run(VAE, *words, cwd=trained).returncode == 0
    files = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert files == [f"sample-{number:02}.png" for number in range(1, 13)]
    pictures = [np.asarray(Image.open(tmp_path / "new" / name)) for name in files]
    assert {picture.shape for picture in pictures} == {(10, 12, 3)}
    assert (pictures[0] != pictures[1]).any()
    with pytest.raises(vae.InputError, match=r"sample-01\.png exists"):
        command(vae, trained, *words)
    words[-1] = tmp_path / "other"
    command(vae, trained, *words, "--seed", 1)
    assert (np.asarray(Image.open(tmp_path / "other" / "sample-01.png")) != pictures[0]).any()


def test_encoded_pictures(folder, trained, vae, tmp_path):
    output = tmp_path / "codes é.npz"
    assert run(VAE, "encode", folder, "--output", output, cwd=trained).returncode == 0
    with np.load(output) as codes:
        found = {name: codes[name] for name in codes.files}
    assert set(found) == {"z_mean", "z_log_sigma", "names"}
    arrays = vae.read_folder(folder)
    encoder = vae.keras.models.load_model(trained / MODELS[VAE] / "encoder.keras")
    z_mean, z_log_sigma = encoder.predict(arrays["x_train"] / 255, verbose=0)
    np.testing.assert_allclose(found["z_mean"], z_mean, atol=1e-5)
    np.testing.assert_allclose(found["z_log_sigma"], z_log_sigma, atol=1e-5)
    assert found["names"][0] == "a/00.png" and len(found["names"]) == 40

    shutil.copytree(trained / MODELS[DENOISER], tmp_path / MODELS[VAE])
    with pytest.raises(vae.InputError, match="not a readable model: ValueError: it is another"):
        command(vae, tmp_path, "encode", folder, "--output", tmp_path / "no.npz")

    x = np.zeros((5, 300, 14), np.uint8)
    np.savez(tmp_path / "x.npz", x_train=x, y_train=np.arange(5), x_test=x[:2], y_test=[7, 8])
    words = ["encode", tmp_path / "x.npz", "--output", output]
    with pytest.raises(vae.InputError, match="exists; --force overwrites it"):
        command(vae, trained, *words)
    command(vae, trained, *words, "--force")
    with np.load(output) as codes:
        assert codes["z_mean"].shape == (7, 2)
        np.testing.assert_array_equal(codes["labels"], [*range(5), 7, 8])


def test_the_recipe_for_idx_files_in_the_readme(tmp_path, vae):
    recipe = re.search(r"```python\n(import gzip.*?)```", (ROOT / "README.md").read_text(), re.S)
    import gzip

    draw = np.random.default_rng(0)
    parts = {"train": draw.integers(0, 256, (30, 9, 8)), "t10k": draw.integers(0, 256, (6, 9, 8))}
    for name, images in parts.items():
        header = struct.pack(">4B3I", 0, 0, 8, 3, *images.shape)
        with gzip.open(tmp_path / f"{name}-images-idx3-ubyte.gz", "wb") as file:
            file.write(header + images.astype(np.uint8).tobytes())
        with gzip.open(tmp_path / f"{name}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(struct.pack(">4BI", 0, 0, 8, 1, len(images)) + bytes(range(len(images))))
    command = [sys.executable, "-c", recipe.group(1)]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    (made,) = tmp_path.glob("*.npz")
    images = vae.load_images(str(made))
    np.testing.assert_array_equal(images.train[..., 0], parts["train"][:28])
    np.testing.assert_array_equal(images.test[..., 0], parts["t10k"])
    np.testing.assert_array_equal(images.test_labels, range(6))
