"""What a user can get wrong: one line that names it, exit status 2, nothing written."""

import io
import pickle
import zipfile

import numpy as np
import pytest
from conftest import DENOISER, ROOT, VAE, run

BOTH = pytest.mark.parametrize("script", [DENOISER, VAE])


def refused(process, folder, *names):
    """Assert that a run ended in one line that holds the names, and left nothing in its folder."""
    assert process.returncode == 2
    assert process.stderr.startswith("error: ") and process.stderr.count("\n") == 1
    assert all(name in process.stderr for name in names), process.stderr
    assert process.stdout == ""
    assert not (folder / "images").exists() and not (folder / "models").exists()


@BOTH
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--epochs", "0"),
        ("--epochs", "1.5"),
        ("--batch-size", "0"),
        ("--learning-rate", "0"),
        ("--learning-rate", "nan"),
        ("--limit", "-3"),
        ("--seed", "-1"),
        ("--seed", "x"),
        ("--data", "no such file.npz"),
    ],
)
def test_wrong_values(script, option, value, tmp_path):
    refused(run(script, option, value, cwd=tmp_path), tmp_path, value)


@pytest.mark.parametrize("value", ["-1", "0", "inf", "much"])
def test_wrong_noise(value, tmp_path):
    refused(run(DENOISER, "--noise", value, cwd=tmp_path), tmp_path, value, "--noise")


@pytest.mark.parametrize(
    ("option", "value"), [("--latent-dim", "1"), ("--beta", "-1"), ("--importance-samples", "0")]
)
def test_wrong_values_of_the_vae(option, value, tmp_path):
    refused(run(VAE, option, value, cwd=tmp_path), tmp_path, value, option)


@BOTH
def test_unknown_and_shortened_options(script, tmp_path):
    for arguments in (["--epoch", "1"], ["--what"], ["stray"]):
        refused(run(script, *arguments, cwd=tmp_path), tmp_path, arguments[0])


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path.read_bytes()


GREY = np.zeros((40, 28, 28), np.uint8)
NOT_A_NUMBER = np.full((40, 28, 28), np.nan, np.float32)


def bad_files(folder):
    """Yield (name, content, what the message must hold) of files that are no data set."""
    scratch = folder / "scratch.npz"
    whole = npz(scratch, x_train=GREY)
    yield "empty", b"", ""
    yield "text", b"no archive", ""
    yield "truncated", whole[: len(whole) // 2], ""
    yield "cut_by_a_byte", whole[:-1], ""
    yield "flipped", whole[:400] + bytes([whole[400] ^ 8]) + whole[401:], ""
    yield "pickle", pickle.dumps({"x_train": GREY}), ""
    yield "objects", npz(scratch, x_train=np.array([GREY, None], dtype=object)), "pickle"
    yield "no_x_train", npz(scratch, x=GREY), "x_train"
    yield "flat", npz(scratch, x_train=GREY.reshape(40, -1)), "(40, 784)"
    yield "two_channels", npz(scratch, x_train=np.zeros((40, 28, 28, 2), np.uint8)), "28, 2)"
    yield "small", npz(scratch, x_train=np.zeros((40, 7, 28), np.uint8)), "(40, 7, 28, 1)"
    yield "large", npz(scratch, x_train=np.zeros((20, 257, 8), np.uint8)), "(20, 257, 8, 1)"
    yield "few", npz(scratch, x_train=GREY[:19]), "(19, 28, 28, 1)"
    yield "int64", npz(scratch, x_train=GREY.astype(int)), "int64"
    yield "text_array", npz(scratch, x_train=np.full((40, 28, 28), "x")), "U1"
    yield "not_a_number", npz(scratch, x_train=NOT_A_NUMBER), "nan"
    yield "infinite", npz(scratch, x_train=NOT_A_NUMBER * 0 + np.inf), "nan"
    yield "out_of_range", npz(scratch, x_train=GREY + np.float32(255)), "255"
    yield "other_test", npz(scratch, x_train=GREY, x_test=GREY[:, 1:]), "(40, 27, 28, 1)"
    yield "empty_test", npz(scratch, x_train=GREY, x_test=GREY[:0]), "x_test"
    yield "few_labels", npz(scratch, x_train=GREY, y_train=np.zeros(3)), "3 labels"
    yield "labels", npz(scratch, x_train=GREY, x_test=GREY, y_test=np.zeros(3)), "3 labels"
    bytes_inside = io.BytesIO()
    with zipfile.ZipFile(bytes_inside, "w") as archive:
        archive.writestr("x_train", pickle.dumps(GREY))
    yield "bytes", bytes_inside.getvalue(), "x_train"


def test_bad_files(vae, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for name, content, text in bad_files(tmp_path):
        path = folder / f"{name}.npz"
        path.write_bytes(content)
        with pytest.raises(vae.InputError) as caught:
            vae.load_images(str(path))
        message = str(caught.value)
        assert str(path) in message and text in message and "\n" not in message, (name, message)


@pytest.mark.parametrize(("script", "name"), [(VAE, "objects"), (DENOISER, "no_x_train")])
def test_bad_files_from_the_command_line(script, name, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    content = {name: content for name, content, _ in bad_files(folder)}[name]
    path = folder / f"{name}.npz"
    path.write_bytes(content)
    refused(run(script, "--data", path, cwd=tmp_path), tmp_path, str(path))


def test_damaged_bundled_digits(vae, tmp_path, monkeypatch):
    monkeypatch.setattr(vae, "__file__", str(tmp_path / VAE))
    (tmp_path / "data").mkdir()
    digits = bytearray((ROOT / "data" / "mnist.npz").read_bytes())
    digits[5_000_000] ^= 1
    (tmp_path / "data" / "mnist.npz").write_bytes(digits)
    with pytest.raises(vae.InputError, match=r"mnist\.npz .*SHA-256"):
        vae.load_images("mnist")


def test_no_network(vae, monkeypatch):
    def fail():
        raise Exception("URL fetch failure on https://example.org\nNone")

    monkeypatch.setattr(vae.keras.datasets.fashion_mnist, "load_data", fail)
    with pytest.raises(vae.InputError, match=r"fashion_mnist cannot be downloaded: .*URL fetch"):
        vae.load_images("fashion_mnist")


def test_an_output_folder_that_is_a_file(tmp_path, script=DENOISER):
    (tmp_path / "taken").write_text("mine")
    process = run(script, "--limit", "100", "--model-dir", "taken", cwd=tmp_path)
    assert process.returncode == 2 and process.stderr.startswith("error: cannot write")
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_failed_write_leaves_the_old_file(vae, tmp_path):
    path = tmp_path / "figure.png"
    path.write_text("old")

    def write(scratch):
        scratch.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        vae.save(path, write)
    assert [p.name for p in tmp_path.iterdir()] == ["figure.png"] and path.read_text() == "old"
