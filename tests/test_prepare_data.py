"""What people bring becomes a file for both scripts: files of arrays, archives, and pictures."""

import functools
import gzip
import io
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import unicodedata
import zipfile

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile
from conftest import refused
from PIL import Image
from running_examples import FOLDER, example, module, worked

DRAW = np.random.default_rng(0).integers
GRAY = DRAW(0, 256, (40, 12, 12), dtype=np.uint8)
GRAY[:, 0, 0] = 0
RGB = DRAW(0, 256, (40, 12, 12, 3), dtype=np.uint8)
LABELS = np.arange(40) % 7
ROWS = np.column_stack([LABELS, GRAY.reshape(40, -1)])
EDGE = GRAY.reshape(40, -1)  # its first pixel is black, as at the edge of digits
SMOOTH = np.uint8(np.add.outer(DRAW(0, 100, 40), np.add.outer(np.arange(12), np.arange(16) * 2)))


@pytest.fixture(scope="session")
def script():
    return module("prepare_data")


@pytest.fixture
def prepare(script, tmp_path, monkeypatch, capsys):
    """Return a function that runs the script in an empty folder and returns arrays and text."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        options = script.parse_options([*map(str, words), "--output", "x.npz", "--force"])
        script.main(options)
        printed = capsys.readouterr()
        assert printed.err == ""
        with np.load(tmp_path / "x.npz") as archive:
            return dict(archive), printed.out

    return run


@pytest.fixture
def fails(prepare, capsys):
    """Return a function that runs the script, which has to end with one line that has the texts."""

    def run(words, *texts):
        with pytest.raises(SystemExit) as caught:
            prepare(*words)
        line = capsys.readouterr().err
        assert caught.value.code == 2 and line.startswith("error: ") and line.count("\n") == 1
        assert all(text in line for text in texts), line

    return run


def same_images(found, expected):
    """Assert that images (n, height, width[, channels]) are the same, in any order."""
    channels = expected.shape[3:] or (1,)
    assert found.shape == (*expected.shape[:3], *channels) and found.dtype == np.uint8
    assert sorted(map(bytes, found)) == sorted(map(bytes, expected))


def save(path, picture, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    picture.save(path, **settings)


def fill(folder, images=GRAY[:30], suffix="png", **settings):
    for index, pixels in enumerate(images):
        save(folder / f"{index}.{suffix}", pixels, **settings)


# ---- Files of arrays -----------------------------------------------------------------------------


def idx(array, code=8):
    """Return an array as an IDX file has it."""
    header = struct.pack(f">4B{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.tobytes()


def table(rows, delimiter=",", header=None):
    lines = [delimiter.join(map(str, row)) for row in rows]
    return "\n".join([header, *lines] if header else lines).encode()


def content(write, *values, **named):
    """Return the bytes that a function writes to a file."""
    buffer = io.BytesIO()
    write(buffer, *values, **named)
    return buffer.getvalue()


npz = functools.partial(content, np.savez)
mat = functools.partial(content, scipy.io.savemat)


def hdf5(arrays):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return buffer.getvalue()


def matlab_7(cells=(), **arrays):
    """Return arrays, and X of cells, as a file of MATLAB 7.3 has them: with reversed axes."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            file[name] = array.T
        parts = [file.create_dataset(f"#refs#/{at}", data=cell.T) for at, cell in enumerate(cells)]
        if parts:
            file["X"] = np.array([[part.ref] for part in parts], dtype=h5py.ref_dtype)
    return b"MATLAB 7.3 MAT-file".ljust(512) + buffer.getvalue()[512:]


def cell_array(cells):
    array = np.empty((1, len(cells)), dtype=object)
    for index, cell in enumerate(cells):
        array[0, index] = cell
    return array


FLAT = GRAY.reshape(40, -1)
LAST = np.moveaxis(GRAY[:, 1:], 0, -1)
COLUMN = LABELS[:, np.newaxis]
NUMBERED = np.column_stack([np.arange(40), ROWS])
WORDS = np.array([*"ABCDEFG"])[LABELS]
WORDS_FIRST = np.column_stack([WORDS, FLAT])
WORDS_LAST = np.column_stack([FLAT, WORDS])
PIXELS = [f"pixel{index}" for index in range(144)]
HEADER = ",".join(["label", *PIXELS])
ENDED = ",".join([*PIXELS, "class"])  # by the label
MOVED = np.roll(ROWS, -1, axis=1)
PANDAS = table(np.column_stack([range(40), FLAT]), header="," + ",".join(map(str, range(144))))
FIRST = "labels are in x/column 1 of 145\n"
NAMED = "labels are in x/column 1 of 145 (label)\n"
TABLES = {  # file name, content, labels, what is said of them; the images are GRAY
    "header": ("x.csv", table(ROWS, header=HEADER), LABELS, NAMED),
    "semicolons": ("x.csv", table(ROWS, ";", HEADER.replace(",", ";")), LABELS, NAMED),
    "tabs": ("x.tsv", table(ROWS, "\t"), LABELS, FIRST),
    "spaces": ("x.txt", table(ROWS / 1.0, "  "), LABELS, FIRST),
    "commas and spaces": ("x.csv", table(ROWS, ", "), LABELS, FIRST),
    "decimal commas": ("x.csv", table(ROWS + 0.25, ";").replace(b".", b","), LABELS + 0.25, FIRST),
    "commas, tabs": ("x.txt", table(ROWS + 0.25, "\t").replace(b".", b","), LABELS + 0.25, FIRST),
    "commas, spaces": ("x.txt", table(ROWS + 0.25, " ").replace(b".", b","), LABELS + 0.25, FIRST),
    "no labels": ("x.csv", table(FLAT), None, ""),
    "pandas": ("x.csv", table(FLAT, header=",".join(map(str, range(144)))), None, ""),
    "pandas with index": ("x.csv", PANDAS, None, ""),
    "marked": ("x.csv", b"\xef\xbb\xbf" + table(ROWS).replace(b"\n", b"\r\n"), LABELS, FIRST),
    "quoted": ("x.csv", re.sub(rb"\d+", rb'"\g<0>"', table(ROWS)), LABELS, FIRST),
    "words": ("x.csv", table(WORDS_FIRST), WORDS, FIRST),
    "words last": ("x.csv", table(WORDS_LAST), WORDS, "labels are in x/column 145 of 145\n"),
    "ids": ("x.csv", table(NUMBERED, header=f"id,{HEADER}"), LABELS, "column 2 of 146 (label)"),
    "index": ("x.csv", table(NUMBERED, header=f",{HEADER}"), LABELS, "column 2 of 146 (label)"),
    "last": ("x.csv", table(MOVED), LABELS, "labels are in x/column 145 of 145\n"),
    "class": ("x.csv", table(MOVED, header=ENDED), LABELS, "145 of 145 (class)\n"),
    "packed": ("x.csv.gz", gzip.compress(table(ROWS, header=HEADER)), LABELS, "1 of 145 (label)\n"),
}  # fmt: skip


@pytest.mark.parametrize("name, content, labels, said", TABLES.values(), ids=TABLES)
def test_tables(name, content, labels, said, prepare, tmp_path):
    (tmp_path / name).write_bytes(content)
    has_commas = labels is not None and labels[0] == 0.25
    arrays, text = prepare(name, *(["--range", 0.25, 255.25] if has_commas else []))
    np.testing.assert_array_equal(arrays["x_train"][..., 0], GRAY)  # in their order
    assert "40 images of 12 x 12 on the first axis" in text and said in text
    assert arrays.get("y_train", np.array(None)).tolist() == np.array(labels).tolist()


SAID = "(11, 12, 40), 40 images of 11 x 12 on the last axis"
SAID_OF_GROUPS = f"x/all/digits: {SAID}\nlabels are in x/all/labels\nleft out: x/names"
TREE = {"train": {"images": LAST, "labels": COLUMN}, "name": "digits"}
GROUPS = {"all/digits": LAST, "all/labels": LABELS, "names": [b"a", b"bc"] * 20, "#refs#/a": LAST}
BINARY = {  # file name, content, images, labels, what is said
    "IDX": ("x-idx3", idx(GRAY), GRAY, None, ""),
    "IDX of floats": ("x-idx3", idx((GRAY / 255).astype(">f4"), 13), GRAY, None, ""),
    "gzip": ("x.gz", gzip.compress(idx(GRAY)), GRAY, None, ""),
    "medmnist": ("x.npz", npz(train_images=GRAY, train_labels=COLUMN), GRAY, LABELS, ""),
    "images": ("a.x.npz", npz(labels=LABELS, images=GRAY), GRAY, LABELS, ""),
    "data": ("x.npz", npz(data=FLAT, target=LABELS), GRAY, LABELS, ""),
    "unnamed": ("x.npz", npz(arr_0=GRAY, arr_1=LABELS), GRAY, LABELS, ""),
    "x": ("x.npz", npz(X=GRAY, y=np.float64(LABELS)), GRAY, LABELS, "labels are in x/y\n"),
    "camel": ("x.npz", npz(trainImages=GRAY, trainLabels=LABELS), GRAY, LABELS, ""),
    "masks": ("x.npz", npz(images=GRAY, mask=GRAY > 9, y=LABELS), GRAY, LABELS, "left out: x/mask"),
    "flat": ("x.npz", npz(data=FLAT, images=GRAY, y=LABELS), GRAY, LABELS, "left out: x/images"),
    "few labels": ("x.npz", npz(x=GRAY, y=LABELS[:30]), GRAY, None, "left out: x/y"),
    "structures": ("x.mat", mat({"data": TREE}), GRAY[:, 1:], LABELS, SAID),
    "MATLAB 7.3": ("x.mat", matlab_7(X=LAST, y=COLUMN), GRAY[:, 1:], LABELS, SAID),
    "groups": ("x.h5", hdf5(GROUPS), GRAY[:, 1:], LABELS, SAID_OF_GROUPS),
    "cells": ("x.mat", mat({"X": cell_array(GRAY), "y": LABELS}), GRAY, LABELS, ""),
    "RGB cells": ("x.mat", mat({"X": cell_array(RGB)}), RGB, None, ""),
    "cells of 7.3": ("x.mat", matlab_7(GRAY, y=COLUMN), GRAY, LABELS, ""),
    "RGB cells of 7.3": ("x.mat", matlab_7(RGB), RGB, None, "(12, 12, 3, 40)"),
}  # fmt: skip


@pytest.mark.parametrize("name, content, images, labels, said", BINARY.values(), ids=BINARY)
def test_files_of_arrays(name, content, images, labels, said, prepare, tmp_path):
    (tmp_path / name).write_bytes(content)
    arrays, text = prepare(name, *(["--shape", 11, 12] if SAID in said else []))
    np.testing.assert_array_equal(np.squeeze(arrays["x_train"]), images)
    assert arrays.get("y_train", np.array(None)).tolist() == np.array(labels).tolist()
    assert said in text.replace("uint8 ", "") and ("left out" in text) == ("left out" in said)


def test_parts_of_the_data_by_names(prepare, tmp_path):
    arrays = {"X_train": GRAY[:25], "Y_train": LABELS[:25], "x_valid": GRAY[25:30]}
    np.savez(tmp_path / "a.npz", **arrays, testImages=GRAY[30:], mean=GRAY[0])
    found, _ = prepare("a.npz")
    assert found.keys() == {"x_train", "y_train", "x_val", "x_test"}
    np.testing.assert_array_equal(found["x_test"][..., 0], GRAY[30:])


def test_one_of_several_arrays(prepare, fails, tmp_path):
    np.savez(tmp_path / "a.npz", left=GRAY, right=GRAY[::-1])
    fails(["a.npz"], "--array NAME says, found a/left (40, 12, 12), a/right (40, 12, 12)")
    fails(["a.npz", "--array", "none"], "found a/left (40, 12, 12), a/right (40, 12, 12)")
    assert not (tmp_path / "x.npz").exists()
    arrays, _ = prepare("a.npz", "--array", "right")
    np.testing.assert_array_equal(arrays["x_train"][..., 0], GRAY[::-1])
    np.save(tmp_path / "mask.npy", GRAY)
    fails(["mask.npy"], "found mask", "--array NAME uses one")
    same_images(prepare("mask.npy", "--array", "mask")[0]["x_train"], GRAY)


RGBA = np.concatenate([RGB, np.full((40, 12, 12, 1), 255, np.uint8)], axis=3)
WIDE = np.tile(GRAY[0], (2, 2))
LARGE = DRAW(0, 256, (300, 12, 16), dtype=np.uint8)
PLANES = RGB.transpose(0, 3, 1, 2)
COLUMNS = GRAY.swapaxes(1, 2).reshape(40, -1)  # as MATLAB flattens them
ORDER = "12 x 12 on the first axis, their pixels row by row (--transpose: column by column)"
AXES = {  # array, expected images, options, text
    "last": (np.moveaxis(GRAY, 0, -1), GRAY, "", "12 x 12 on the last axis"),
    "last of few": (np.moveaxis(GRAY[:20, :, :], 0, -1), GRAY[:20], "", "12 x 12 on the last axis"),
    "last, oblong": (np.moveaxis(LARGE, 0, -1), LARGE, "", "12 x 16 on the last axis"),
    "first, oblong": (LARGE, LARGE, "", "12 x 16 on the first axis"),
    "channels first": (PLANES, RGB, "", "3 x 12 x 12 on the first axis"),
    "one channel first": (GRAY[:, np.newaxis], GRAY, "", "1 x 12 x 12 on the first axis"),
    "RGB, last": (RGB.transpose(1, 2, 3, 0), RGB, "", "12 x 12 x 3 on the last axis"),
    "alpha": (RGBA, RGB, "", "12 x 12 x 4 on the first axis"),
    "floats and alpha": (RGBA / 255, RGB, "", "are used without their fourth channel"),
    "flat": (FLAT, GRAY, "", ORDER),
    "flat by columns": (COLUMNS, GRAY, "--transpose", ORDER),
    "columns": (FLAT.T[:, :37], GRAY[:37], "", "12 x 12 on the last axis"),
    "flat, oblong": (GRAY[:, 1:].reshape(40, -1), GRAY[:, 1:], "--shape 11 12", "11 x 12 on the"),
    "planes": (PLANES.reshape(40, -1), RGB, "--shape 3 12 12", "3 x 12 x 12"),
    "flat RGB": (RGB.reshape(40, -1), RGB, "--shape 12 12 3", "12 x 12 x 3 on the first axis"),
    "sequences": (GRAY.reshape(4, 10, 12, 12), GRAY, "--shape 12 12", "12 x 12 on the first axis"),
    "one image": (WIDE, WIDE, "--shape 24 24", "1 images of 24 x 24"),
    "Fortran": (np.asfortranarray(GRAY), GRAY, "", "12 x 12 on the first axis"),
}


@pytest.mark.parametrize("array, expected, words, said", AXES.values(), ids=AXES)
def test_order_of_axes(array, expected, words, said, prepare, tmp_path):
    np.save(tmp_path / "a.npy", array)
    arrays, text = prepare("a.npy", *words.split())
    np.testing.assert_array_equal(np.squeeze(arrays["x_train"]), expected)
    assert said in text and f"({', '.join(map(str, array.shape))})" in text


SLOPE = np.add.outer(np.arange(144), np.arange(144))


@pytest.mark.parametrize("array, shapes", [
    (DRAW(0, 256, (30, 20, 40)), "--shape 20 40 or --shape 30 20"),
    (RGB.reshape(40, -1), "--shape HEIGHT WIDTH"),
    (GRAY[:, 1:].reshape(40, -1), "--shape HEIGHT WIDTH"),
    (np.repeat(RGB, 2, axis=3), "--shape HEIGHT WIDTH"),
    (SLOPE, "--shape 12 12 or --shape 144 144"),
])  # fmt: skip
def test_axes_that_only_the_user_can_tell(array, shapes, prepare, fails, tmp_path):
    np.save(tmp_path / "a.npy", array)
    fails(["a.npy"], f"must have images as told by {shapes}, found {array.shape}")
    if array.ndim == 3:
        arrays, _ = prepare("a.npy", "--shape", 30, 20)
        assert arrays["x_train"].shape == (40, 30, 20, 1)


FULL = GRAY.copy()
FULL[0, 0, :2] = 0, 255
RANGES = {  # array, range in the file; the images of those named .png and .tif are files
    "floats to 255": (np.float32(FULL), None),
    "floats to 1": (FULL / 255, (0, 1)),
    "a little above 1": (FULL / 255 * 1.002 - 0.001, (0, 1)),
    "half": (np.float16(FULL / 255), (0, 1)),
    "-1 to 1": (FULL / 127.5 - 1, (-1, 1)),
    "of 16": (FULL / 255 * 16, (0, 16)),
    "standardized": (FULL / 255 * 5 - 2, (-2, 3)),
    "16 bits": (np.uint16(FULL) * 16 + 100, (100, 4180)),
    ".png": (np.uint16(FULL) * 16, (0, 4080)),
    ".tif": (np.float32(FULL / 255), (0, 1)),
    "big-endian": (FULL.astype(">i4"), None),
    "booleans": (FULL > 99, None),
    "0 and 1": (np.uint8(FULL > 99), (0, 1)),
    "floats of 0 and 1": (np.float32(FULL > 99), (0, 1)),
    "signed bytes": (np.int8(FULL.astype(int) - 128), (-128, 127)),
}


@pytest.mark.parametrize("name", RANGES)
def test_ranges_of_values(name, prepare, tmp_path):
    array, limits = RANGES[name]
    expected = FULL if len(np.unique(array)) > 2 else np.where(FULL > 99, 255, 0)
    if name in (".png", ".tif"):
        fill(tmp_path / "in", array, name[1:])
        words = ["in"]
        expected = expected[:, np.newaxis]  # in any order
    else:
        np.save(tmp_path / "a.npy", array)
        words = ["a.npy"]
    arrays, text = prepare(*words)
    difference = np.abs(arrays["x_train"][..., 0].astype(int) - expected)
    assert difference.max(axis=(-2, -1)).min(axis=0).max() <= 1
    if limits is None:
        assert "pixel_range" not in arrays
        return
    low, high = limits
    assert f"{low} is used as black, {high} as white" in text
    np.testing.assert_allclose(arrays["pixel_range"], limits)
    assert arrays["pixel_range"].dtype == np.float64
    arrays, _ = prepare(*words, "--range", low, 2 * high - low)
    assert arrays["x_train"].max() == 128
    np.testing.assert_allclose(arrays["pixel_range"], (low, 2 * high - low))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(value, fails, tmp_path):
    array = np.float64(GRAY)
    array[7, 3, 3] = value
    np.save(tmp_path / "a.npy", array)
    fails(["a.npy"], "error: a must have finite numbers, found others in 1 of 40 images\n")


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_outliers_are_named(dtype, prepare, tmp_path):
    array = FULL.astype(dtype) * 4
    array[7, 3, 3] = 60_000
    np.save(tmp_path / "a.npy", array)
    arrays, text = prepare("a.npy")
    assert "99.9% of them lie in 0 to 1020, which --range 0 1020 uses" in text
    assert np.median(arrays["x_train"]) < 4
    arrays, text = prepare("a.npy", "--range", 0, 1020)
    assert "99.9%" not in text and np.median(arrays["x_train"]) > 99
    np.save(tmp_path / "a.npy", FULL.astype(dtype) * 4)
    assert "99.9%" not in prepare("a.npy")[1]


def test_files_of_arrays_that_cannot_be_read(prepare, fails, tmp_path):
    """All are reported at once, and left out where --skip-unreadable says so."""
    (tmp_path / "in").mkdir()
    scipy.io.savemat(tmp_path / "in" / "a.mat", {"images": GRAY})
    for name in ("b.mat", "c.mat"):
        (tmp_path / "in" / name).write_bytes(b"MATLAB 5.0 MAT-file")
    fails(["in"], "2 of 3 files cannot be read", "(b.mat, c.mat: ", "--skip-unreadable")
    arrays, text = prepare("in", "--skip-unreadable")
    assert "skipped: 2 of 3 files cannot be read" in text
    same_images(arrays["x_train"], GRAY)


@pytest.mark.parametrize("form", ["{}-ubyte", "{}-ubyte.gz", "{0}-ubyte/{0}-ubyte", "both"])
def test_folders_of_idx_files(form, prepare, fails, tmp_path):
    """As they are published, and as Kaggle unpacks them: each in a folder, or twice."""
    expected = {"x_train": GRAY[:30], "y_train": np.uint8(LABELS[:30])}
    expected |= {"x_test": GRAY[30:], "y_test": np.uint8(LABELS[30:])}
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    forms = ["{}.ubyte", "{0}-ubyte/{0}-ubyte"] if form == "both" else [form]
    for name, array in zip(names, expected.values(), strict=True):
        for each in forms:
            path = tmp_path / "d" / each.format(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(idx(array)) if path.suffix == ".gz" else idx(array))
    arrays, _ = prepare("d")
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(np.squeeze(arrays[name]), array)
    (tmp_path / "d" / "sample_submission.csv").write_text("id,label\n1,0\n2,0\n")
    (tmp_path / "d" / "README.txt").write_text("These are digits.")
    prepare("d")
    path.write_bytes(path.read_bytes()[:-1])
    fails(["d"], "cannot be read")


@pytest.mark.parametrize("name, content, text", [
    ("data_batch_1", b"\x80\x04\x95rest", "pickle, because opening one can run code"),
    ("model.pt", b"PK\3\4rest", "pickle, because opening one can run code"),
    ("x.h5", b"\x89HDF\r\n\x1a\nrest", "1 of 1 files cannot be read (x.h5: "),
    ("x.npz", b"PK\3\4rest", "1 of 1 files cannot be read (x.npz: "),
    ("x.gz", b"\x1f\x8brest", "1 of 1 files cannot be read (x.gz: "),
    ("x.mat", b"MATLAB 5.0 MAT-file", "1 of 1 files cannot be read (x.mat: "),
    ("x.csv", b"a,b\nc,d\n", "there must be pictures or arrays of images, found none"),
    ("x.mp4", b"\0\0\0\x18ftypmp42", "there must be pictures or arrays of images, found none"),
    ("x.txt", b"", "there must be pictures or arrays of images, found none"),
    ("x.npz", npz(x=np.array([GRAY, None], dtype=object)), "cannot be read (x.npz: Object arr"),
    ("x.mat", mat({"X": cell_array([*GRAY, GRAY[0, 1:]])}), "of one size, found (11, 12) and (12"),
    ("x.mat", matlab_7([*GRAY, GRAY[0, 1:]]), "(x.mat: X must have cells of one size, found (12"),
    ("x.mat", matlab_7([*RGB, RGB[0, 1:]]), "(x.mat: X must have cells of one size, found (3, 12"),
    ("gap.csv", table(ROWS) + b"\n1,," + b"1," * 142 + b"1", "could not convert string ''"),
    ("iris.csv", b"5.1,3.5,1.4,.2,setosa\n" * 150, "a row of iris.csv must have 64 pixels or more"),
    ("x.npz", npz(x_test=GRAY, x_val=GRAY), "in train, val and test, or in none of them"),
])  # fmt: skip
def test_files_that_cannot_be_read(name, content, text, fails, tmp_path):
    (tmp_path / name).write_bytes(content)
    fails([name], text)


# ---- Archives ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.xz"])
def test_archives_of_pictures(name, prepare, tmp_path):
    """With a folder at the top, and what macOS adds."""
    fill(tmp_path / "top" / "photos" / "a")
    (tmp_path / "top" / "photos" / ".DS_Store").write_text("hidden")
    fill(tmp_path / "top" / "__MACOSX", GRAY[30:33])
    fill(tmp_path / "top" / "photos" / "__MACOSX", GRAY[30:33])
    kind = {".zip": "zip", ".tar": "tar", ".gz": "gztar", ".xz": "xztar"}["." + name.split(".")[-1]]
    shutil.make_archive(tmp_path / "a", kind, tmp_path / "top")
    arrays, _ = prepare(name)
    same_images(arrays["x_train"], GRAY[:30])
    assert sorted(arrays["names_train"])[:2] == ["a/0.png", "a/1.png"]


def test_archives_that_leave_their_folder(fails, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../../evil.png", b"x")
        archive.writestr("a.bin", bytes(10_000))
    fails(["a.zip"], "found none")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("../evil.png"))
    (tmp_path / "b.zip").write_bytes(b"PK\3\4rest")
    (tmp_path / "c.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:5000])
    for name in ("a.tar", "b.zip", "c.zip"):
        fails([name], f"{name} cannot be unpacked: ")
    fails(["c.zip"], "c.zip is not a zip file")


# ---- Kinds of pictures ---------------------------------------------------------------------------


@pytest.mark.parametrize("suffix, settings", [
    ("pgm", {}), ("png", {}), ("BMP", {}), ("gif", {}), ("jp2", {}), ("tga", {}),
    ("webp", {"lossless": True}), ("tif", {}), ("", {"format": "PNG"}), ("", {"format": "TIFF"}),
])  # fmt: skip
def test_kinds_of_pictures(suffix, settings, prepare, tmp_path):
    fill(tmp_path / "in", suffix=suffix or "x", **settings)
    for path in list((tmp_path / "in").iterdir()):
        path.rename(path.with_suffix(f".{suffix}" if suffix else ""))
    arrays, _ = prepare("in")
    same_images(arrays["x_train"], GRAY[:30])
    expected = {path.name for path in (tmp_path / "in").iterdir()}
    assert {*arrays["names_train"]} == expected


DEEP = np.uint16(FULL[:30]) * 16
TIFFS = {  # images, settings of tifffile
    "bool": (FULL[:30] > 99, {"photometric": "minisblack"}),
    "16 bits": (DEEP, {}),
    "signed": (np.int16(DEEP) - 2000, {}),
    "32 bits": (np.uint32(DEEP) * 1000, {}),
    "floats": (np.float32(FULL[:30] / 255), {}),
    "doubles": (FULL[:30] / 255, {}),
    "big": (DEEP, {"bigtiff": True, "byteorder": ">"}),
    "0 is white": (255 - FULL[:30], {"photometric": "miniswhite"}),
    "16 bits, 0 is white": (65535 - np.uint16(FULL[:30]) * 257, {"photometric": "miniswhite"}),
    "RGB": (RGB[:30], {"photometric": "rgb"}),
    "RGB of 16 bits": (np.uint16(RGB[:30]) * 257, {"photometric": "rgb"}),
    "planes": (RGB[:30].transpose(0, 3, 1, 2), {"photometric": "rgb", "planarconfig": 2}),
    "tiles": (RGB[:30], {"photometric": "rgb", "tile": (16, 16)}),
    "deep planes": (np.uint16(RGB[:30].transpose(0, 3, 1, 2)) * 257, {"photometric": "rgb"}),
    "LZW": (DEEP, {"compression": "lzw"}),
}


@pytest.mark.parametrize("name", TIFFS)
def test_kinds_of_tiff(name, prepare, tmp_path):
    images, settings = TIFFS[name]
    (tmp_path / "in").mkdir()
    for index, image in enumerate(images):
        tifffile.imwrite(tmp_path / "in" / f"{index}.tif", image, **settings)
    arrays, _ = prepare("in")
    expected = RGB[:30] if images.ndim == 4 else FULL[:30, ..., np.newaxis]
    if name == "bool":
        expected = np.where(expected > 99, 255, 0)
    found = np.empty_like(expected)
    for image, file in zip(arrays["x_train"], arrays["names_train"], strict=True):
        found[int(file.removesuffix(".tif"))] = image
    np.testing.assert_allclose(found.astype(int), expected, atol=1)


def test_stacks_and_animations(prepare, tmp_path):
    """Each page and frame is an image."""
    tifffile.imwrite(tmp_path / "a.tif", DEEP)
    tifffile.imwrite(tmp_path / "b.tif", DEEP, imagej=True)
    tifffile.imwrite(tmp_path / "e.tif", DEEP, truncate=True)  # one page with all of them
    tifffile.imwrite(tmp_path / "g.tif", FULL[:30], imagej=True)  # likewise, of 8 bits
    frames = [Image.fromarray(image) for image in FULL[:30]]
    frames[0].save(tmp_path / "f.tif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "c.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "d.webp", save_all=True, append_images=frames[1:], lossless=True)
    for name in ("a.tif", "b.tif", "c.gif", "d.webp", "e.tif", "f.tif", "g.tif"):
        arrays, text = prepare(name)
        assert "1 files: 30 pages or frames, each of which is an image" in text
        np.testing.assert_allclose(arrays["x_train"].shape, (30, 12, 12, 1))
        order = np.argsort([int(each.partition("#")[2] or 1) for each in arrays["names_train"]])
        np.testing.assert_allclose(arrays["x_train"][order, ..., 0].astype(int), FULL[:30], atol=1)


def test_all_modes_become_rgb(prepare, tmp_path):
    picture = Image.fromarray(np.full((12, 12, 3), (200, 60, 60), np.uint8))
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        save(tmp_path / "in" / f"{mode}.png", picture.convert(mode))
    for mode, name in (("CMYK", "cmyk.jpg"), ("CMYK", "cmyk.tif"), ("P", "palette.tif")):
        save(tmp_path / "in" / name, picture.convert(mode))
    arrays, text = prepare("in")
    assert "3 pictures are grayscale" in text and "2 pictures are converted from CMYK" in text
    found = dict(zip(arrays["names_train"], arrays["x_train"], strict=True))
    for name in ("P.png", "RGB.png", "RGBA.png", "cmyk.jpg", "cmyk.tif", "palette.tif"):
        np.testing.assert_allclose(found[name].mean(axis=(0, 1)), (200, 60, 60), atol=12)
    arrays, _ = prepare("in", "--gray")
    assert arrays["x_train"].shape == (9, 12, 12, 1)


def test_transparency_is_put_on_white(prepare, tmp_path):
    save(tmp_path / "in" / "1.png", np.zeros((9, 12, 4), np.uint8))
    save(tmp_path / "in" / "gray.png", np.full((9, 12, 2), (50, 255), np.uint8))
    arrays, text = prepare("in", "--range", 0, 255)
    assert "1 pictures have transparency, put on white" in text
    assert sorted(image.mean() for image in arrays["x_train"]) == [50, 255]


@pytest.mark.parametrize("suffix", ["jpg", "tif", "png"])
def test_rotated_pictures_are_upright(suffix, prepare, tmp_path):
    """By their EXIF data, in all eight orientations."""
    upright = np.full((24, 16), 200, np.uint8)
    upright[:8, :8] = 40
    upright[16:] = 120
    stored = [upright, upright[:, ::-1], upright[::-1, ::-1], upright[::-1]]
    stored += [each.T for each in (upright, upright[:, ::-1], upright[::-1, ::-1], upright[::-1])]
    for orientation, pixels in enumerate(stored, start=1):
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        exif = picture.getexif()
        exif[274] = orientation
        save(tmp_path / "in" / f"{orientation}.{suffix}", picture, exif=exif)
    arrays, text = prepare("in")
    assert "7 pictures are rotated as their EXIF data say" in text
    for image in arrays["x_train"]:
        np.testing.assert_allclose(image[..., 0].astype(int), upright, atol=40)


@pytest.mark.parametrize("name, content, package", [
    ("a.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "pillow_heif"),
    ("1.2.840", bytes(128) + b"DICM", "pydicom"), ("a.pdf", b"%PDF", "pypdfium2"),
])  # fmt: skip
def test_a_package_that_is_missing(name, content, package, fails, tmp_path, monkeypatch):
    (tmp_path / name).write_bytes(content)
    monkeypatch.setitem(sys.modules, package, None)
    fails([name], f"{name}: needs: pip install {package}")


def test_heic(prepare, tmp_path):
    pytest.importorskip("pillow_heif").register_heif_opener()
    fill(tmp_path / "in", SMOOTH[:30, :, :12].repeat(4, axis=1).repeat(4, axis=2), "heic")
    arrays, _ = prepare("in")
    assert arrays["x_train"].shape[:3] == (30, 48, 48)


def dicom(path, pixels):
    """Write 16-bit pixels as DICOM."""
    import pydicom

    data = pydicom.Dataset()
    data.preamble = bytes(128)
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.PhotometricInterpretation = "MONOCHROME2"
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.BitsAllocated, data.BitsStored, data.HighBit = 1, 16, 16, 15
    data.PixelRepresentation = 0
    data.RescaleIntercept, data.RescaleSlope = -1024, 1
    data.add_new("PixelData", "OW", pixels.tobytes())
    data.save_as(path)


def test_dicom(prepare, tmp_path):
    """With a suffix or without, in Hounsfield units by its own slope and intercept."""
    pytest.importorskip("pydicom")
    (tmp_path / "in").mkdir()
    for index, pixels in enumerate(DEEP):
        dicom(tmp_path / "in" / (f"{index}.dcm" if index % 2 else f"1.2.840.{index}"), pixels)
    arrays, text = prepare("in")
    same_images(arrays["x_train"], FULL[:30])
    assert "-1024 is used as black, 3056 as white" in text


def test_pdf(prepare, tmp_path):
    pytest.importorskip("pypdfium2")
    page = Image.fromarray(np.tile(SMOOTH[0], (10, 10)))
    page.save(tmp_path / "a.pdf", save_all=True, append_images=[page] * 2)
    arrays, text = prepare("a.pdf", "--crop", 16, "--count", 30)
    assert "3 pictures are drawn at 150 dpi" in text and len(arrays["x_train"]) == 30


def test_pictures_that_cannot_be_read(prepare, fails, tmp_path):
    """All are reported at once, also those that fail only when their pixels are read."""
    fill(tmp_path / "in")
    for index in range(12):
        path = tmp_path / "in" / f"{index}.png"
        path.write_bytes(path.read_bytes()[: 20 if index % 2 else -40])
    (tmp_path / "in" / "0.png").write_bytes(b"\n<!DOCTYPE html><html>")
    (tmp_path / "in" / "1.png").write_bytes(b"")
    words = ["in", "--skip-unreadable"]
    found = "0.png: is an HTML page; 1.png: is damaged or of a kind that is not read; 10.png, 2"
    fails(words[:1], f"12 of 30 pictures cannot be read ({found}")
    assert not (tmp_path / "x.npz").exists()
    arrays, text = prepare(*words)
    assert "skipped: 12 of 30 pictures cannot be read" in text
    same_images(arrays["x_train"], GRAY[12:30])
    assert len(arrays["names_train"]) == 18
    (tmp_path / "none").mkdir()
    fails(["none"], "there must be pictures or arrays of images, found none")
    five = {"photometric": "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "none" / "five.tif", np.zeros((9, 9, 5), np.uint8), **five)
    tifffile.imwrite(tmp_path / "none" / "nan.tif", np.full((9, 9), np.nan))
    fails(["none"], "five.tif: is damaged or of a kind", "nan.tif must have finite numbers")
    (tmp_path / "none" / "five.tif").unlink()
    shutil.copy(tmp_path / "none" / "nan.tif", tmp_path / "none" / "a.tif")
    fails(["none"], "2 of 2 pictures cannot be read (a.tif, nan.tif must have finite numbers, ")


def test_names_that_are_not_utf_8(tmp_path):
    """Old zip archives have such; they are printed with a backslash."""
    (tmp_path / "in").mkdir()
    for name in (b"/M\xfcller.png", b"/good\xfc.png"):
        with open(bytes(tmp_path / "in") + name, "wb") as file:
            Image.new("L", (9, 9), 200).save(file, "PNG")
    with open(bytes(tmp_path / "in") + b"/M\xfcller.png", "wb") as file:
        file.write(b"no picture")
    words = ["in", "--output", "x.npz", "--skip-unreadable"]
    strict = {"PYTHONIOENCODING": "utf-8:strict"}
    process = example("prepare_data", *words, cwd=tmp_path, **strict)
    assert process.returncode == 0, process.stderr
    assert "M\\udcfcller.png: is damaged" in process.stdout
    with np.load(tmp_path / "x.npz") as archive:
        assert archive["names_train"].tolist() == ["good\\udcfc.png"]


# ---- Folders: parts, labels, pairs, copies -------------------------------------------------------


def test_folders_named_as_parts(prepare, fails, tmp_path):
    for part, count in (("training_set", 6), ("Testing/test", 3), ("valid", 2)):
        for label in "ab":
            fill(tmp_path / "in" / part / label, GRAY[:count])
    arrays, _ = prepare("in")
    counts = {name: len(array) for name, array in arrays.items() if name[0] == "x"}
    assert counts == {"x_train": 12, "x_test": 6, "x_val": 4}
    assert {*arrays["y_train"]} == {*arrays["y_test"]} == {"a", "b"}
    for name, image in zip(arrays["names_test"], arrays["x_test"], strict=True):
        np.testing.assert_array_equal(image[..., 0], np.asarray(Image.open(tmp_path / "in" / name)))
    shutil.copytree(tmp_path / "in" / "Testing", tmp_path / "alone" / "test")
    fails(["alone"], "must be in train, val and test, or in none of them, found 6 in test")
    fill(tmp_path / "in" / "more", GRAY[:2])
    fails(["in"], "12 in train", "2 in others")


def test_several_folders_are_labels(prepare, tmp_path):
    fill(tmp_path / "some" / "cats", GRAY[:15])
    fill(tmp_path / "dogs", GRAY[15:30])
    arrays, text = prepare("some/cats", "dogs")
    assert "2 labels: cats, dogs" in text
    found = dict(zip(arrays["names_train"], arrays["y_train"], strict=True))
    assert found["cats/3.png"] == "cats" and found["dogs/3.png"] == "dogs" and len(found) == 30


def test_masks_are_left_out(prepare, tmp_path):
    """As MVTec AD has them, and in a folder alongside the images."""
    fill(tmp_path / "mvtec" / "train" / "good", RGB[:20])
    fill(tmp_path / "mvtec" / "test" / "crack", RGB[20:25])
    for index in range(5):
        save(tmp_path / "mvtec" / "ground_truth" / "crack" / f"{index}_mask.png", GRAY[index])
    arrays, text = prepare("mvtec")
    assert "left out 5 masks of other pictures, such as ground_truth/crack/0_mask.png" in text
    assert len(arrays["x_train"]) == 20 and len(arrays["x_test"]) == 5
    fill(tmp_path / "both" / "images", RGB[:20])
    fill(tmp_path / "both" / "masks", GRAY[:20])
    arrays, _ = prepare("both")
    same_images(arrays["x_train"], RGB[:20])
    arrays, _ = prepare("both/masks")
    same_images(arrays["x_train"], GRAY[:20])


@pytest.fixture
def pairs(tmp_path):
    """Two folders of pictures, of which two have no partner."""
    for folder, low in (("clean", 0), ("dirty", 100)):
        fill(tmp_path / folder / "a", np.clip(GRAY[:30], low, 255))
    (tmp_path / "clean" / "a" / "3.png").unlink()
    (tmp_path / "dirty" / "a" / "7.png").unlink()


def test_pairs_of_pictures(pairs, prepare, fails, tmp_path):
    arrays, text = prepare("clean", "--noisy", "dirty")
    assert "skipped 2 pictures without a partner of the same name: a/3.png, a/7.png" in text
    (tmp_path / "other").mkdir()
    fails(["clean", "--noisy", "other"], "must have the same names")
    same_images(arrays["x_train"], np.delete(GRAY[:30], [3, 7], axis=0))
    np.testing.assert_array_equal(arrays["x_train_noisy"], np.clip(arrays["x_train"], 100, 255))
    arrays, _ = prepare("clean", "--noisy", "dirty", "--crop", 8, "--count", 50)
    for part, count in (("train", 50), ("val", 5), ("test", 5)):
        clean, noisy = arrays[f"x_{part}"], arrays[f"x_{part}_noisy"]
        assert clean.shape == (count, 8, 8, 1)
        np.testing.assert_array_equal(noisy, np.clip(clean, 100, 255))
    Image.fromarray(GRAY[0, 1:]).save(tmp_path / "dirty" / "a" / "0.png")
    fails(["clean", "--noisy", "dirty"], "sizes of its partner, [(11, 12)], found [(12, 12)]")


def test_pairs_by_name(prepare, fails, tmp_path):
    """Accents may be composed or not, and suffixes differ where only one picture is meant."""
    for index in range(20):
        clean = unicodedata.normalize("NFC", f"página {index}")
        noisy = unicodedata.normalize("NFD", clean)
        assert clean != noisy
        save(tmp_path / "clean" / f"{clean}.png", GRAY[index])
        save(tmp_path / "dirty" / f"{noisy}.bmp", GRAY[index])
    arrays, _ = prepare("clean", "--noisy", "dirty")
    np.testing.assert_array_equal(arrays["x_train"], arrays["x_train_noisy"])
    assert len(arrays["x_train"]) == 20
    for suffix in ("png", "bmp"):
        save(tmp_path / "clean" / f"a.{suffix}", GRAY[30])
        save(tmp_path / "dirty" / f"a.{suffix}", GRAY[30])
    arrays, _ = prepare("clean", "--noisy", "dirty")
    assert len(arrays["x_train"]) == 22
    for name in ("clean/b.png", "dirty/b.bmp", "dirty/b.gif"):
        save(tmp_path / name, GRAY[30])
    _, text = prepare("clean", "--noisy", "dirty")
    assert "without a partner of the same name: b.bmp, b.gif, b.png" in text


def test_denoising_dirty_documents(prepare, fails, tmp_path):
    """The layout of that data set on Kaggle: train, train_cleaned, test; pages of two sizes."""
    for index in range(12):
        page = DRAW(0, 200, (42 if index % 2 else 26, 54), dtype=np.uint8)
        for folder, pixels in (("train_cleaned", page), ("train", page + 40), ("test", page)):
            save(tmp_path / "d" / folder / f"{index}.png", pixels)
    words = ["d/train_cleaned", "--noisy", "d/train", "--crop", 16, "--count", 60]
    arrays, _ = prepare(*words)
    for part, count in (("train", 60), ("val", 6), ("test", 6)):
        assert len(arrays[f"x_{part}"]) == count
        noisy = arrays[f"x_{part}_noisy"].astype(int)
        np.testing.assert_array_equal(noisy, arrays[f"x_{part}"].astype(int) + 40)
    fails(["d"], "in train, val and test, or in none of them, found 12 in test, 12 in train, 12 in")
    for folder in ("train_cleaned", "train"):
        shutil.make_archive(tmp_path / folder, "zip", tmp_path / "d", folder)
    arrays, _ = prepare("train_cleaned.zip", "--noisy", "train.zip", "--crop", 16, "--count", 60)
    assert len(arrays["x_train_noisy"]) == 60


def test_folders_are_kept_together(prepare, fails, tmp_path):
    for video in range(10):
        fill(tmp_path / "in" / f"v{video}", GRAY[video : video + 4])
    arrays, text = prepare("in", "--keep-folders-together")
    assert "--keep-folders-together: each label is in one part only" in text
    parts = []
    for part in ("train", "val", "test"):
        parts.append({name.partition("/")[0] for name in arrays[f"names_{part}"]})
    assert [len(each) for each in parts] == [8, 1, 1] and len(set.union(*parts)) == 10
    for name in ("v1", "v2"):
        fill(tmp_path / "two" / name)
    fails(["two", "--keep-folders-together"], "must have 3 folders or more, found 2")


def test_copies_are_named_and_dropped(prepare, tmp_path):
    fill(tmp_path / "in", GRAY[:25])
    for index in (1, 2):
        shutil.copy(tmp_path / "in" / f"{index}.png", tmp_path / "in" / f"copy{index}.png")
    (tmp_path / "in" / "link.png").symlink_to("1.png")
    arrays, text = prepare("in")
    assert "3 of 28 images are copies of others: kept" in text
    assert len(arrays["x_train"]) == 28
    lines = (tmp_path / "x-copies.txt").read_text().splitlines()
    assert lines == ["copy1.png\t1.png", "copy2.png\t2.png", "link.png\t1.png"]
    arrays, _ = prepare("in", "--drop-copies")
    same_images(arrays["x_train"], GRAY[:25])
    shutil.copytree(tmp_path / "in", tmp_path / "parts" / "train")
    fill(tmp_path / "parts" / "test", GRAY[20:30])
    arrays, _ = prepare("parts", "--drop-copies")
    same_images(arrays["x_train"], GRAY[:25])
    same_images(arrays["x_test"], GRAY[25:30])
    np.save(tmp_path / "a.npy", np.concatenate([GRAY, GRAY[:1]]))
    arrays, _ = prepare("a.npy", "--drop-copies")
    same_images(arrays["x_train"], GRAY)
    assert (tmp_path / "x-copies.txt").read_text() == "a[40]\ta[0]\n"


def test_fewer_images_than_the_scripts_take(prepare, tmp_path):
    np.save(tmp_path / "a.npy", GRAY[:19])
    assert "the scripts need 20 or more images in x_train" in prepare("a.npy", "--shape", 12, 12)[1]
    np.save(tmp_path / "a.npy", GRAY[:20])
    assert "20 or more" not in prepare("a.npy", "--shape", 12, 12)[1]


def test_what_is_skipped_is_counted(prepare, tmp_path):
    fill(tmp_path / "in", GRAY[:25])
    fill(tmp_path / "in" / ".hidden", GRAY[25:])
    for name in ("a.txt", "b.txt", "c.psd"):
        (tmp_path / "in" / name).write_text("no picture")
    arrays, text = prepare("in")
    assert "in: skipped 2 .txt, 1 .psd\n" in text
    same_images(arrays["x_train"], GRAY[:25])


# ---- Sizes and crops -----------------------------------------------------------------------------


def test_proportions_are_kept(prepare, fails, tmp_path):
    """A white bar of 40 x 10 on gray: padded with gray, cropped to white, or stretched."""
    wide = np.full((10, 40), 90, np.uint8)
    wide[3:7, 10:30] = 255
    fill(tmp_path / "in", [wide] * 2)
    arrays, text = prepare("in", "--size", 20)
    assert "2 of 2 pictures are not square: --fit pad" in text
    image = arrays["x_train"][0, ..., 0]
    assert (image[:8] == 90).all() and (image[13:] == 90).all() and image[10, 8:12].min() > 240
    arrays, text = prepare("in", "--size", 20, "--fit", "crop")
    assert "--fit crop" in text and arrays["x_train"][0, 9:11, 1:19].min() > 200
    arrays, text = prepare("in", "--size", 20, "--fit", "stretch")
    assert "--fit stretch" in text and (arrays["x_train"][0, 8:12, 8:12] > 240).all()
    fill(tmp_path / "in", [wide] * 2, "bmp")
    Image.fromarray(wide[1:]).save(tmp_path / "in" / "1.png")
    fails(["in"], "of one size", "--size or --crop, found 2 from (9, 40) to (10, 40)")
    save(tmp_path / "tall" / "1.png", Image.new("L", (300, 10)))
    fails(["tall"], "sides of 8 to 256, or have --size or --crop, found 1 from (10, 300)")


def test_the_crops_of_few_pictures_share_no_pixel(prepare, fails, tmp_path):
    """Of one picture, whose pixels are all different, and of one that is too small to be cut."""
    large = np.arange(60 * 20, dtype=np.uint32).reshape(60, 20)
    colours = np.stack([large % 251, large // 251, np.full_like(large, 9)], axis=-1)
    fill(tmp_path / "in", [np.uint8(colours)])
    Image.fromarray(RGB[0, :, :10]).save(tmp_path / "in" / "small.png")
    arrays, _ = prepare("in", "--crop", 8, "--count", 300)
    shapes = {name: arrays[name].shape for name in ("x_train", "x_val", "x_test")}
    assert shapes == {"x_train": (300, 8, 8, 3), "x_val": (30, 8, 8, 3), "x_test": (30, 8, 8, 3)}
    pixels = {name: {*map(bytes, arrays[name].reshape(-1, 3))} for name in shapes}
    assert not pixels["x_train"] & pixels["x_test"]
    assert not pixels["x_train"] & pixels["x_val"] and not pixels["x_val"] & pixels["x_test"]
    assert len({crop[0, 0].tobytes() for crop in arrays["x_train"]}) > 150  # places
    from_large = np.mean([crop[0, 0, 2] == 9 for crop in arrays["x_train"]])
    assert 0.92 < from_large < 1  # 37 x 13 places, and 5 x 3 in the small one
    (tmp_path / "in" / "0.png").unlink()
    fails(["in", "--crop", 8], "10 pictures to train on, or sides of 24", "found 1 and 12")


def test_the_crops_of_many_pictures_are_of_other_pictures(prepare, tmp_path):
    pictures = np.empty((20, 12, 12), np.uint8)
    pictures[:] = np.arange(20)[:, np.newaxis, np.newaxis]
    pictures[:, 0, 0] = 255
    fill(tmp_path / "in", pictures)
    arrays, _ = prepare("in", "--crop", 8, "--count", 400)
    found = {name: {*arrays[name][:, 4, 4, 0]} for name in ("x_train", "x_val", "x_test")}
    assert [len(each) for each in found.values()] == [16, 2, 2]
    assert len(set.union(*found.values())) == 20
    assert {*arrays["names_test"]} == {f"{value}.png" for value in found["x_test"]}


# ---- As a command --------------------------------------------------------------------------------


def test_nothing_is_overwritten_or_left_half_written(tmp_path):
    fill(tmp_path / "in")
    words = ["in", "--output", "x.npz"]
    assert "wrote x.npz" in worked("prepare_data", *words, cwd=tmp_path)
    before = (tmp_path / "x.npz").read_bytes()
    refused(example("prepare_data", *words, cwd=tmp_path), "x.npz exists; --force overwrites it")
    assert (tmp_path / "x.npz").read_bytes() == before
    (tmp_path / "y-copies.txt").write_text("mine")
    words = ["in", "--output", "y.npz"]
    refused(example("prepare_data", *words, cwd=tmp_path), "y-copies.txt exists")
    assert {path.name for path in tmp_path.iterdir()} == {"in", "x.npz", "y-copies.txt"}


PEAK = """
import sys
sys.path.insert(0, sys.argv[1])
import prepare_data
prepare_data.main(prepare_data.parse_options(sys.argv[2:]))
assert "tensorflow" not in sys.modules and "keras" not in sys.modules
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""


def test_memory_does_not_grow_with_large_pictures(tmp_path):
    """A dozen links to one of 12 megapixels take less than 400 MB; TensorFlow is not imported."""
    save(tmp_path / "in" / "0.jpg", Image.new("RGB", (4000, 3000), (200, 90, 30)))
    for index in range(1, 12):
        (tmp_path / "in" / f"{index}.jpg").symlink_to("0.jpg")
    words = ["in", "--output", "x.npz", "--size", "64"]
    command = [sys.executable, "-c", PEAK, str(FOLDER), *words]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert int(process.stdout.split()[-1]) < 400 * 1024  # Linux counts in KiB


def test_a_picture_of_225_megapixels(prepare, fails, tmp_path, monkeypatch):
    save(tmp_path / "in" / "1.png", Image.new("1", (15000, 15000), 1), compress_level=1)
    arrays, _ = prepare("in", "--size", 16)
    assert (arrays["x_train"] == 255).all()
    monkeypatch.setattr(module("prepare_data").pictures, "LARGEST", 200_000_000)
    fails(["in", "--size", 16], "must have at most 200,000,000 pixels, found 15,000 x 15,000")
