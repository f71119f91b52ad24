"""Files that nobody vouches for, cut, changed, swollen, swapped: an error that names them."""

import os
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import DENOISER, VAE, run
from PIL import Image
from test_bad_input import refused
from test_own_pictures import SUFFIXES, draw

RANDOM = np.random.default_rng(11)


def spoilt(content, cuts, flips):
    """Yield the content cut at many lengths, and with one to eight of its bytes changed."""
    for length in np.linspace(0, len(content) - 1, cuts).astype(int):
        yield content[:length]
    for _ in range(flips):
        changed = np.frombuffer(content, np.uint8).copy()
        places = RANDOM.integers(len(changed), size=RANDOM.integers(1, 9))
        changed[places] = RANDOM.integers(0, 256, size=len(places))
        yield changed.tobytes()


def outcomes(read, path, contents, error):
    """Return what `read` makes of each content: a value, or None for an error with the path."""
    found = []
    for content in contents:
        path.write_bytes(content)
        try:
            found.append(read(path))
        except error as caught:
            assert str(path) in str(caught) and "\n" not in str(caught)
            found.append(None)
    return found


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_spoilt_npz(save, vae, tmp_path):
    x = RANDOM.integers(0, 256, (20, 8, 8), dtype=np.uint8)
    path = tmp_path / "x é.npz"
    save(path, x_train=x)
    contents = spoilt(path.read_bytes(), 200, 800)
    found = outcomes(lambda path: vae.load_images(str(path)), path, contents, vae.InputError)
    loaded = [images for images in found if images is not None]
    assert 0 < len(loaded) < 400  # what the checksums do not cover: dates and the like
    whole, _ = vae.images_and_labels({"x_train": x}, "train", "")
    for images in loaded:  # to the same images, or to none
        assert {*map(bytes, np.concatenate(images[:3]))} == {*map(bytes, whole)}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_spoilt_pictures(suffix, vae, tmp_path):
    path = tmp_path / f"x.{suffix}"
    draw(path, (20, 16), "RGB")
    contents = list(spoilt(path.read_bytes(), 100, 300))
    found = outcomes(vae.read_picture, path, contents, vae.InputError)
    images = [image for image in found if image is not None]
    assert None in found and all(i.dtype == np.uint8 and i.shape[2] in (1, 3) for i in images)
    if suffix == "png":  # whose checksums cover everything
        assert all(image.shape == (16, 20, 3) for image in images)


def test_spoilt_models(vae, tmp_path):
    path = tmp_path / "model.keras"
    image = keras.Input((8, 8, 1))
    model = keras.Model(image, keras.layers.Conv2D(2, 3)(image))
    model.save(path)
    contents = list(spoilt(path.read_bytes(), 30, 120))
    found = outcomes(lambda path: vae.open_model(path, [4, 4]), path, contents, vae.InputError)
    assert sum(each is None for each in found) > 60
    for loaded in found:
        if loaded is not None:  # what the checksums do not cover
            for one, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
                np.testing.assert_array_equal(one, other)


def test_a_model_with_a_lambda_layer_is_not_opened(tmp_path):
    image = keras.Input((8, 8, 1))
    model = keras.Model(image, keras.layers.Lambda(lambda x: 1 - x)(image))
    (tmp_path / "in").mkdir()
    model.save(tmp_path / "in" / "model.keras")
    draw(tmp_path / "in" / "a.png")
    words = ["denoise", "in/a.png", "--output", "out", "--model-dir", "in"]
    process = run(DENOISER, *words, cwd=tmp_path)
    refused(process, tmp_path, "in/model.keras is not a readable model")
    assert "Lambda" in process.stderr and not (tmp_path / "out").exists()


def test_a_model_of_another_kind(vae, tmp_path):
    z = keras.Input((2,))
    keras.Model(z, keras.layers.Dense(1)(z)).save(tmp_path / "model.keras")
    with pytest.raises(vae.InputError, match=r"model\.keras .* another model, .*\(None, 2\)"):
        vae.open_model(tmp_path / "model.keras", [2, 4])


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (DENOISER, ["denoise", "in/a.png", "--output", "out"]),
        (VAE, ["encode", "in/a.png", "--output", "out/c.npz"]),
        (VAE, ["generate", "--output", "out"]),
    ],
)
def test_no_model(script, words, tmp_path):
    draw(tmp_path / "in" / "a.png")
    refused(run(script, *words, cwd=tmp_path), tmp_path, "models/", ".keras", "No such file")
    assert not (tmp_path / "out").exists()


def png_of(width, height):
    """Return a PNG file of a few hundred bytes that says it is as large as asked for."""

    def chunk(kind, content):
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(10_000))
    parts = [(b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def test_bombs(vae, tmp_path, monkeypatch):
    (tmp_path / "bomb.png").write_bytes(png_of(50_000, 50_000))
    with pytest.raises(vae.InputError, match=r"bomb\.png .* more than 67,108,864 pixels"):
        vae.read_picture(tmp_path / "bomb.png")
    monkeypatch.setattr(vae, "UNPACKED_LIMIT", 2**26)
    zeros = bytes(2**20)
    for name in ("bomb.npz", "bomb.keras"):
        with (
            zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
            archive.open("x_train.npy", "w", force_zip64=True) as file,
        ):
            for _ in range(65):
                file.write(zeros)
    assert (tmp_path / "bomb.npz").stat().st_size < 2**18
    with pytest.raises(vae.InputError, match=r"bomb\.npz .* unpacks to 68,157,440 bytes"):
        vae.load_images(str(tmp_path / "bomb.npz"))
    with pytest.raises(vae.InputError, match=r"bomb\.keras .* unpacks to 68,157,440 bytes"):
        vae.open_model(tmp_path / "bomb.keras", [4, 4])


def test_an_array_that_says_it_is_larger_than_its_file(vae, tmp_path):
    path = tmp_path / "liar.npz"
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999, 28, 28), }\n"
    with zipfile.ZipFile(path, "w") as archive:
        start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header))
        archive.writestr("x_train.npy", start + header + bytes(1000))
    with pytest.raises(vae.InputError, match=r"liar\.npz is not a readable"):
        vae.load_images(str(path))


def test_other_formats_are_not_opened(vae, tmp_path):
    for kind in ("TIFF", "WEBP", "PPM", "ICO"):
        Image.new("L", (16, 16)).save(tmp_path / "x.png", kind)
        with pytest.raises(vae.InputError, match="cannot identify"):
            vae.read_picture(tmp_path / "x.png")


def test_no_permission(vae):
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder / "x.png")
        np.savez(folder / "x.npz", x_train=np.zeros((20, 8, 8), np.uint8))
        (folder / "sub").mkdir()
        for path in folder.iterdir():
            path.chmod(0)
        folder.chmod(0o755)
        try:
            if root:  # whom no permission stops
                os.seteuid(65534)
            with pytest.raises(vae.InputError, match=r"x\.png .*PermissionError"):
                vae.read_picture(folder / "x.png")
            with pytest.raises(vae.InputError, match=r"x\.npz .*PermissionError"):
                vae.read_arrays(folder / "x.npz")
            with pytest.raises(PermissionError, match="sub"):  # of which exit_status makes a line
                vae.read_folder(folder)
        finally:
            if root:
                os.seteuid(0)
            (folder / "sub").chmod(0o755)


def test_folders_with_nothing_to_read(vae, tmp_path):
    for name in ("x.npz", "x.png", "x.keras"):
        (tmp_path / name).mkdir()
    with pytest.raises(vae.InputError, match=r"has no pictures; accepted: \.png"):
        vae.load_images(str(tmp_path / "x.npz"))
    with pytest.raises(vae.InputError, match=r"x\.png .*IsADirectory"):
        vae.read_picture(tmp_path / "x.png")
    with pytest.raises(vae.InputError, match=r"x\.keras .*IsADirectory"):
        vae.open_model(tmp_path / "x.keras", [4, 4])


def test_one_unreadable_picture_among_good_ones(tmp_path):
    folder = tmp_path / "my pictures, ü"
    for number in range(30):
        draw(folder / f"{number:02}.png", seed=number)
    (folder / "17.png").write_bytes((folder / "17.png").read_bytes()[:50])
    words = ["--data", folder, "--epochs", 1]
    refused(run(VAE, *words, cwd=tmp_path), tmp_path, str(folder / "17.png"), "--skip-unreadable")
    process = run(VAE, *words, "--skip-unreadable", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert process.stderr.startswith(f"left out: {folder / '17.png'} is not a readable picture")
    assert process.stderr.count("\n") == 1


@pytest.mark.parametrize("script", [DENOISER, VAE])
def test_an_empty_folder_from_the_command_line(script, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(run(script, "--data", "empty", cwd=tmp_path), tmp_path, "empty has no pictures")
