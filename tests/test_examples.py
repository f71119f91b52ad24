"""Picture files in and out: names, sizes, formats, and nothing overwritten unless asked to."""

import ast
import gzip
import os
import re
import shutil
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import DENOISER, MODELS, ROOT, VAE, refused, trained
from PIL import Image
from running_examples import FOLDER, example, module, worked

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
        draw(place / "photos" / "ab"[index % 2] / f"{index:02}.{SUFFIXES[index % 4]}", seed=index)
    draw(place / "photos" / "b" / "._02.png")  # as macOS leaves them behind
    (place / "photos" / "notes.txt").write_text("no picture")
    worked("pictures_to_npz", "photos", "--output", "photos.npz", cwd=place)
    trained(DENOISER, "--data", "photos.npz", "--epochs", 1, cwd=place)
    trained(VAE, "--data", "photos.npz", "--epochs", 1, "--latent-dim", 5, cwd=place)
    assert len(list((place / "images").glob("*.png"))) == 8
    return place


def test_a_folder_becomes_a_data_set(place):
    arrays = arrays_of(place / "photos.npz")
    assert arrays["x_train"].shape == (40, 10, 12, 3)  # GIF files come in colours
    assert sorted(arrays["y_train"]) == ["a"] * 20 + ["b"] * 20
    assert len(set(arrays["y_train"][:8])) == 2  # in random order
    expected = np.random.default_rng(0).integers(0, 256, (10, 12), dtype=np.uint8)  # 00.png
    same = [(image[..., 0] == expected).all() for image in arrays["x_train"]]
    assert sum(same) == 1 and arrays["y_train"][np.argmax(same)] == "a"
    process = example("pictures_to_npz", "photos", "--output", "photos.npz", cwd=place)
    refused(process, "photos.npz exists; --force overwrites it")


def test_sizes_crops_and_grey(tmp_path):
    draw(tmp_path / "in" / "1.png", (20, 30), "RGB")
    draw(tmp_path / "in" / "2.png", (10, 12), "RGB", seed=1)
    words = ["in", "--output", "x.npz"]
    refused(example("pictures_to_npz", *words, cwd=tmp_path), "2 sizes", "--crop")
    worked("pictures_to_npz", *words, "--size", 9, "--grey", cwd=tmp_path)
    assert arrays_of(tmp_path / "x.npz")["x_train"].shape == (2, 9, 9, 1)
    words = ["in", "--output", "y.npz", "--crop", 11]
    process = example("pictures_to_npz", *words, cwd=tmp_path)
    refused(process, "fewer than ten pictures, all with sides under 33 pixels; accepted: ten")


def test_the_crops_of_few_pictures_share_no_pixel(tmp_path):
    """Of one picture, whose pixels are all different, and of one that is too small to be cut."""
    large = np.arange(60 * 20, dtype=np.uint32).reshape(60, 20)
    colours = np.stack([large % 251, large // 251, np.full_like(large, 9)], axis=-1)
    (tmp_path / "in").mkdir()
    Image.fromarray(np.uint8(colours)).save(tmp_path / "in" / "1.png")
    draw(tmp_path / "in" / "2.png", (10, 12), "RGB", seed=1)
    words = ["in", "--output", "x.npz", "--crop", 8, "--count", 300]
    worked("pictures_to_npz", *words, cwd=tmp_path)
    arrays = arrays_of(tmp_path / "x.npz")
    shapes = {name: arrays[name].shape for name in ("x_train", "x_val", "x_test")}
    assert shapes == {"x_train": (300, 8, 8, 3), "x_val": (30, 8, 8, 3), "x_test": (30, 8, 8, 3)}
    pixels = {name: {*map(bytes, arrays[name].reshape(-1, 3))} for name in shapes}
    assert not pixels["x_train"] & pixels["x_test"]
    assert not pixels["x_train"] & pixels["x_val"] and not pixels["x_val"] & pixels["x_test"]
    from_large = np.mean([crop[0, 0, 2] == 9 for crop in arrays["x_train"]])
    assert 0.92 < from_large < 1  # 37 x 13 places, and 5 x 3 in the small one


def test_the_crops_of_many_pictures_are_of_other_pictures(tmp_path):
    for index in range(20):
        pixels = np.full((12, 12), index, np.uint8)
        pixels[0, 0] = 255
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{index}.png")
    words = ["in", "--output", "x.npz", "--crop", 8, "--count", 400]
    worked("pictures_to_npz", *words, cwd=tmp_path)
    arrays = arrays_of(tmp_path / "x.npz")
    found = {name: {*arrays[name][:, 4, 4, 0]} for name in ("x_train", "x_val", "x_test")}
    assert [len(each) for each in found.values()] == [16, 2, 2]
    assert len(set.union(*found.values())) == 20


def test_alpha_and_cameras(tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(np.zeros((9, 12, 4), np.uint8)).save(tmp_path / "in" / "1.png")
    turned = Image.fromarray(np.full((12, 9, 3), 7, np.uint8))
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    turned.save(tmp_path / "in" / "2.jpg", exif=exif)
    worked("pictures_to_npz", "in", "--output", "x.npz", cwd=tmp_path)
    means = sorted(image.mean() for image in arrays_of(tmp_path / "x.npz")["x_train"])
    assert means == pytest.approx([7, 255], abs=1)
    for path in (tmp_path / "in").iterdir():
        path.unlink()
    Image.fromarray(np.full((9, 9, 2), (50, 255), np.uint8)).save(tmp_path / "in" / "grey.png")
    words = ["in", "--output", "x.npz", "--force"]
    worked("pictures_to_npz", *words, cwd=tmp_path)
    images = arrays_of(tmp_path / "x.npz")["x_train"]
    assert images.shape == (1, 9, 9, 1) and (images == 50).all()


def test_folders_with_nothing_to_read(tmp_path):
    (tmp_path / "in").mkdir()
    words = ["in", "--output", "x.npz"]
    refused(example("pictures_to_npz", *words, cwd=tmp_path), "in has no pictures", ".png")
    draw(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "half.png").write_bytes((tmp_path / "in" / "good.png").read_bytes()[:50])
    refused(
        example("pictures_to_npz", *words, cwd=tmp_path),
        "1 of 2 pictures cannot be read (in/half.png",
    )
    assert not (tmp_path / "x.npz").exists()


def test_denoised_pictures_keep_size_and_name(place, tmp_path):
    draw(tmp_path / "in" / "sub" / "b.gif", (40, 30))
    pixels = draw(tmp_path / "in" / "a.png", (12, 10), "RGB")
    draw(tmp_path / "c.jpeg", (12, 10))
    words = [tmp_path / "in", tmp_path / "c.jpeg", "--output", tmp_path / "out"]
    worked("denoise_pictures", *words, cwd=place)
    sizes = {}
    for path in (tmp_path / "out").rglob("*.*"):
        with Image.open(path) as picture:
            sizes[str(path.relative_to(tmp_path / "out"))] = (picture.format, picture.size)
    assert sizes == {
        "a.png": ("PNG", (12, 10)), "sub/b.png": ("PNG", (40, 30)), "c.png": ("PNG", (12, 10))
    }  # fmt: skip
    import keras

    model = keras.models.load_model(place / MODELS[DENOISER] / "model.keras")
    padded = np.pad(pixels, [(0, 2), (0, 0), (0, 0)], mode="reflect")  # 12 x 10 to 12 x 12
    expected = np.rint(model(padded[None] / 255).numpy()[0, :10] * 255)
    found = np.asarray(Image.open(tmp_path / "out" / "a.png")).astype(int)
    assert np.abs(found - expected).max() <= 1
    page = np.random.default_rng(0).integers(0, 256, (150, 210, 3), dtype=np.uint8)
    denoise = module("denoise_pictures").denoise
    tiles, whole = (denoise(model, page, tile).astype(int) for tile in (64, 1024))
    assert np.abs(tiles - whole).max() <= 1 and whole.std() > 0
    (tmp_path / "out" / "a.png").unlink()
    refused(example("denoise_pictures", *words, cwd=place), "exists; --force overwrites it")
    assert not (tmp_path / "out" / "a.png").exists()  # none is written if one exists
    worked("denoise_pictures", *words, "--force", cwd=place)
    draw(tmp_path / "in" / "a.bmp")
    refused(example("denoise_pictures", *words, "--force", cwd=place), "to one file")


def test_generated_pictures(place, tmp_path):
    words = ["--count", 12, "--output", tmp_path / "new"]
    worked("generate_digits", *words, cwd=place)
    files = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert files == [f"sample-{number:02}.png" for number in range(1, 13)]
    pictures = [np.asarray(Image.open(tmp_path / "new" / name)) for name in files]
    assert {picture.shape for picture in pictures} == {(10, 12, 3)}
    assert len({picture.tobytes() for picture in pictures}) == 12
    refused(example("generate_digits", *words, cwd=place), "sample-01.png exists; --force")
    worked("generate_digits", *words, "--force", "--seed", 1, cwd=place)
    assert (np.asarray(Image.open(tmp_path / "new" / files[0])) != pictures[0]).any()


def test_pictures_generated_from_the_codes_of_data(place, tmp_path):
    """The mixture gives points with the means and deviations of the codes."""
    words = ["--count", 3, "--from-data", "photos.npz", "--output", tmp_path / "new"]
    worked("generate_digits", *words, cwd=place)
    names = ["prior_and_data.png", *(f"sample-{number}.png" for number in (1, 2, 3))]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == names
    assert Image.open(tmp_path / "new" / names[0]).size[0] > 500
    refused(example("generate_digits", *words, cwd=place), "sample-1.png exists; --force")

    images = np.random.default_rng(0).integers(0, 256, (600, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", x_train=images)
    flat = images.reshape(600, -1)[:, :3] / 255 + [5, 0, 0]  # codes far from the prior
    encoder = SimpleNamespace(input_shape=(None, 8, 8, 1))
    encoder.predict = lambda x, **settings: (x.reshape(len(x), -1)[:, :3] + [5, 0, 0], -9.0)
    mixture = module("generate_digits").fit_mixture(encoder, tmp_path / "x.npz", 0)
    z, _ = mixture.sample(5000)
    np.testing.assert_allclose(z.mean(axis=0), flat.mean(axis=0), atol=0.05)
    np.testing.assert_allclose(z.std(axis=0), flat.std(axis=0), atol=0.05)


def test_encoded_images(place, tmp_path):
    import keras

    words = ["photos.npz", "--output", tmp_path / "codes.npz"]
    worked("encode_images", *words, cwd=place)
    codes, arrays = arrays_of(tmp_path / "codes.npz"), arrays_of(place / "photos.npz")
    encoder = keras.models.load_model(place / MODELS[VAE] / "encoder.keras")
    z_mean, z_log_sigma = encoder.predict(np.float32(arrays["x_train"]) / 255, verbose=0)
    np.testing.assert_allclose(codes["z_mean"], z_mean, atol=1e-5)
    np.testing.assert_allclose(codes["z_log_sigma"], z_log_sigma, atol=1e-5)
    np.testing.assert_array_equal(codes["labels"], arrays["y_train"])
    refused(example("encode_images", *words, cwd=place), "codes.npz exists; --force")
    np.savez(tmp_path / "other.npz", x_train=np.zeros((5, 28, 28), np.uint8))
    words = [tmp_path / "other.npz", "--output", tmp_path / "no.npz"]
    refused(
        example("encode_images", *words, cwd=place),
        "x_train must be uint8",
        "found uint8 (5, 28, 28)",
    )


@pytest.mark.parametrize("words", ["denoise_pictures photos", "generate_digits"])
def test_no_model(words, place, tmp_path):
    name, *words = words.split()
    process = example(name, *words, "--output", tmp_path / "x", "--model-dir", "none", cwd=place)
    refused(process, "none/", "does not exist")
    assert not (tmp_path / "x").exists()


def idx(array):
    """Return an array of bytes as an IDX file has it."""
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.mark.parametrize("compress", [gzip.compress, bytes])
def test_idx_files(compress, tmp_path):
    suffix = ".gz" if compress is gzip.compress else ""
    draw = np.random.default_rng(0).integers
    expected = {"x_train": draw(0, 256, (30, 9, 8)), "x_test": draw(0, 256, (6, 9, 8))}
    for name, part in (("train", "train"), ("t10k", "test")):
        images = expected[f"x_{part}"]
        labels = expected[f"y_{part}"] = np.arange(len(images))
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            path = tmp_path / "in" / f"{name}-{kind}-ubyte{suffix}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(compress(idx(array)))
    worked("pictures_to_npz", "in", "--output", "x.npz", cwd=tmp_path)
    arrays = arrays_of(tmp_path / "x.npz")
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(arrays[name], array)
    process = example("pictures_to_npz", "in", "--output", "no.npz", "--size", 8, cwd=tmp_path)
    refused(process, "in has IDX files", "neither --size, --crop, --noisy nor --grey")
    path = tmp_path / "in" / f"train-images-idx3-ubyte{suffix}"
    worked("pictures_to_npz", path, "--output", "one.npz", cwd=tmp_path)
    assert arrays_of(tmp_path / "one.npz")["x_train"].shape == (30, 9, 8)
    path.write_bytes(compress(idx(expected["x_train"])[:-1]))
    words = ["in", "--output", "no.npz"]
    refused(example("pictures_to_npz", *words, cwd=tmp_path), "2,159 values", "[30, 9, 8]")
    assert not (tmp_path / "no.npz").exists()


MODEL_FILES = ("denoiser/model", "denoiser/encoder", "vae/encoder", "vae/decoder")
PACKAGES = (
    "tensorflow",
    "keras",
    "numpy",
    "matplotlib",
    "PIL",
    "scipy",
    "skimage",
    "sklearn",
    "tqdm",
)
WORDS = {  # of a command that gets as far as importing what it needs
    "codes_as_features": "--model-dir .",
    "compare_dimensions": "vae",
    "denoise_page": "--model-dir denoiser",
    "dirty_documents": "--output out",
    "dirty_pages": ". --output out",
    "denoise_pictures": "a.png --output out --model-dir denoiser",
    "denoiser_page": "--model-dir denoiser",
    "encode_images": "a.npz --output codes.npz --model-dir vae",
    "generate_digits": "--output out --model-dir vae",
    "latent_explorer": "--model-dir vae",
    "latent_tour": "--model-dir vae --images-dir out",
    "odd_ones_out": "--model-dir .",
    "one_class": "--output out",
    "pictures_to_npz": ". --output b.npz",
    "plane_forming": "",
    "pretraining": "--model-dir .",
}


def test_every_example_is_among_them():
    assert {*WORDS, "common"} == {path.stem for path in FOLDER.glob("*.py")}


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Settings to run an example in a folder of empty models, without any package installed."""
    folder, missing = tmp_path_factory.mktemp("bare"), tmp_path_factory.mktemp("missing")
    for path in MODEL_FILES:
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / f"{path}.keras").touch()
    draw(folder / "a.png")
    np.savez(folder / "a.npz", x_test=np.zeros((2, 28, 28), np.uint8))
    for package in PACKAGES:
        (missing / f"{package}.py").write_text(f"raise ModuleNotFoundError('no {package}')")
    return {"cwd": folder, "PYTHONPATH": str(missing)}


@pytest.mark.parametrize("name", WORDS)
def test_help_mistakes_and_missing_packages(name, bare):
    process = example(name, "--help", COLUMNS="80", **bare)
    assert process.returncode == 0 and process.stdout.startswith("usage: ")
    source = ast.parse((ROOT / "examples" / f"{name}.py").read_text())
    _, command, *_ = ast.get_docstring(source, clean=False).split("\n\n")
    assert command.startswith(f"    python examples/{name}.py")
    assert process.stdout.endswith(f"\nexample: {command.strip()}\n")  # in one line
    assert "default: None" not in process.stdout
    refused(example(name, "--no-such-option", **bare), "see --help")
    process = example(name, *WORDS[name].split(), **bare)
    refused(process, "error: no ", "pip install -r examples/requirements.txt")


@pytest.mark.parametrize(
    "words, text",
    [
        ("codes_as_features --limit 5", "argument --limit: 5: accepted: 1,000 to 60,000"),
        ("codes_as_features --limit 60001", "argument --limit: 60001: accepted: 1,000 to 60,000"),
        ("codes_as_features --limit 1e4", "argument --limit: 1e4: accepted: 1,000 to 60,000"),
        ("codes_as_features --model-dir none", "none/denoiser/encoder.keras does not exist"),
        ("codes_as_features --model-dir . --images-dir", "argument --images-dir: expected one"),
        ("compare_dimensions vae denoiser", "denoiser/decoder.keras does not exist"),
        ("denoise_page --model-dir none", "none/model.keras does not exist"),
        ("pretraining --draws 1", "argument --draws: 1: accepted: 2 to 100"),
        ("pretraining --model-dir none", "none/denoiser/encoder.keras does not exist"),
        ("denoise_pictures none.png --output out", "argument PATH: none.png does not exist"),
        (
            "denoise_pictures vae --output out --model-dir denoiser",
            "no pictures in vae; accepted: .png",
        ),
        (
            "denoise_pictures a.png --output . --model-dir denoiser",
            "a.png exists; --force overwrites it",
        ),
        ("denoise_pictures a.png --output out", "models/denoiser/model.keras does not exist"),
        ("encode_images none.npz --output out.npz", "argument FILE: none.npz does not exist"),
        (
            "encode_images a.npz --output a.npz --model-dir vae",
            "a.npz exists; --force overwrites it",
        ),
        ("encode_images a.npz --output out.npz", "models/vae/encoder.keras does not exist"),
        (
            "generate_digits --output out --count 0",
            "argument --count: 0: accepted: 1 to 10,000,000",
        ),
        ("generate_digits --output out", "models/vae/decoder.keras does not exist"),
        ("latent_explorer", "models/vae/encoder.keras does not exist"),
        ("latent_tour --model-dir vae --data none", "argument --data: none does not exist"),
        ("pictures_to_npz none --output out.npz", "argument DIR: none does not exist"),
        ("pictures_to_npz . --output out.npz --size 5", "argument --size: 5: accepted: 8 to 256"),
        ("plane_forming --epochs 0", "argument --epochs: 0: accepted: 1 to 100"),
        ("plane_forming --limit 60000", "argument --limit: 60000: accepted: 20 to 55,000"),
    ],
)
def test_mistakes_need_no_package(words, text, bare):
    refused(example(*words.split(), **bare), f"error: {text}")
    assert not (bare["cwd"] / "out").exists()


@pytest.mark.parametrize(
    "name", ["codes_as_features", "compare_dimensions", "latent_explorer", "latent_tour"]
)
def test_damaged_models_and_models_without_a_plane(name, bare, place):
    process = example(name, *WORDS[name].split(), cwd=bare["cwd"])
    refused(process, "encoder.keras cannot be opened: ")
    if name != "compare_dimensions":
        words = ["--model-dir", "models" if name == "codes_as_features" else "models/vae"]
        process = example(name, *words, cwd=place)
        refused(process, "error: models/vae: accepted: models with 2 latent dimensions\n")


@pytest.mark.parametrize("name, default", [
    ("codes_as_features", "models"), ("denoise_page", "models/denoiser"),
    ("denoiser_page", "models/denoiser"), ("latent_explorer", "models/vae"),
    ("latent_tour", "models/vae"), ("odd_ones_out", "models"),
])  # fmt: skip
def test_other_models_keep_their_pictures_apart(name, default, bare, tmp_path, monkeypatch):
    """Pictures go to `images`, or to --model-dir if that is not the default one."""
    shutil.copytree(bare["cwd"], tmp_path / "models")
    shutil.copytree(tmp_path / default, tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    parse = module(name).parser.parse_args
    assert parse([]).images_dir == Path("images")
    assert parse(["--model-dir", f"{default}/"]).images_dir == Path("images")
    assert parse(["--model-dir", "other"]).images_dir == Path("other")
    assert parse(["--model-dir", "other", "--images-dir", "new"]).images_dir == Path("new")


def imports_and_names(node):
    """Return the packages that a piece of code imports, and the names that it uses."""
    nodes = [*ast.walk(node)]
    packages = [each.module for each in nodes if isinstance(each, ast.ImportFrom)]
    for each in nodes:
        if isinstance(each, ast.Import):
            packages += [alias.name for alias in each.names]
    names = {each.attr for each in nodes if isinstance(each, ast.Attribute)}
    names |= {each.id for each in nodes if isinstance(each, ast.Name)}
    packages = {package.split(".")[0] for package in packages}
    return packages - sys.stdlib_module_names, names


def test_examples_import_nothing_of_the_project_but_common():
    """common.py loads a script when asked, and imports only the standard library at its top."""
    project = {path.stem for path in (*ROOT.glob("*.py"), *ROOT.glob("*/*.py"))}
    imported = {}
    for path in FOLDER.glob("*.py"):
        packages, _ = imports_and_names(ast.parse(path.read_text()))
        imported[path.stem] = packages & project
        assert "sys.path" not in path.read_text() or path.stem == "common"
    assert imported.pop("common") == {VAE.removesuffix(".py")}
    assert all(names == {"common"} for names in imported.values()), imported
    top = ast.parse((FOLDER / "common.py").read_text()).body
    names = [alias.name for node in top if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in top if isinstance(node, ast.ImportFrom)]
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


def needed_packages(path):
    """Return the packages that an example imports, itself or by functions of common.py."""
    packages, names = imports_and_names(ast.parse(path.read_text()))
    body = ast.parse((FOLDER / "common.py").read_text()).body
    functions = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
    todo = [*(names & {*functions})]
    while todo:
        more, names = imports_and_names(functions.pop(todo.pop()))
        packages |= more
        todo += [name for name in names & {*functions} if name not in todo]
    if VAE.removesuffix(".py") in packages:
        packages |= imports_and_names(ast.parse((ROOT / VAE).read_text()))[0]
    return packages - {"common", "umap", VAE.removesuffix(".py")}  # works without umap


@pytest.mark.parametrize("name", WORDS)
def test_an_example_names_the_packages_that_it_needs(name):
    path = FOLDER / f"{name}.py"
    header = path.read_text().partition("# ///\n")[0]
    named = set(re.findall(r'"([a-z-]+)[=>]', header))
    of_module = {"PIL": "pillow", "sklearn": "scikit-learn", "skimage": "scikit-image"}
    needed = {of_module.get(package, package) for package in needed_packages(path)}
    assert needed and needed <= named


@pytest.mark.parametrize(
    "arrays, text",
    [
        ({"x_train": np.zeros((5, 8, 8))}, "a.npz must have x_test, found x_train"),
        ({"z_mean": np.zeros((5, 2))}, "a.npz must have x_test, found no images"),
        ({"x_test": np.zeros((5, 8, 9))}, "x_test must have images (8, 8, 1), found (8, 9, 1)"),
        ({"x_test": np.zeros((0, 8, 8))}, "found float64 (0, 8, 8)"),
        ({"x_test": np.full((5, 8, 8), 7)}, "a.npz: x_test must be uint8, bool or float in [0, 1]"),
        ({"x_test": np.full((5, 8, 8), 1.5)}, "found float64 (5, 8, 8)"),
        (
            {"x_test": np.zeros((5, 8, 8)), "y_test": np.zeros(4)},
            "y_test must have a label for each image, found 4 for 5",
        ),
    ],
)
def test_data_that_a_model_cannot_take(arrays, text, tmp_path, capsys):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(SystemExit, match="2"):
        module("common").read_images(tmp_path / "a.npz", "test", (8, 8, 1))
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and text in error


def test_damaged_data(tmp_path, capsys):
    (tmp_path / "a.npz").write_text("no archive")
    with pytest.raises(SystemExit, match="2"):
        module("common").read_images(tmp_path / "a.npz", "test", (8, 8, 1))
    assert "must be mnist, fashion_mnist, or a whole .npz or .npy file" in capsys.readouterr().err


def test_labels_of_digits(capsys):
    """Numbers or text from 0 to 9, as pictures_to_npz.py has them of folders; no others."""
    common = module("common")
    digits = np.repeat(np.arange(10), 3)
    for labels in (digits, digits.astype(np.uint8), digits.astype(float), digits.astype(str)):
        found = common.digit_labels("x.npz", labels, 3)
        assert found.dtype.kind == "i"
        np.testing.assert_array_equal(found, digits)
    for labels in (digits[1:], digits[3:], np.append(digits, 10), digits + 0.5, digits + 1):
        with pytest.raises(SystemExit, match="2"):
            common.digit_labels("x.npz", labels, 3)
        accepted = "3 or more labels of each class from 0 to 9, and no others; found: "
        assert f"error: x.npz: accepted: {accepted}" in capsys.readouterr().err


def test_what_a_model_that_is_there_was_trained_on(tmp_path, capsys):
    """It may be of a first try, with few epochs or of other data."""
    common = module("common")
    (tmp_path / "encoder.keras").write_text("a model")
    (tmp_path / "metrics.json").write_text('{"data": "own.npz", "epochs": 3}')
    common.train_if_missing(tmp_path / "encoder.keras", "no.py", None)
    text = f"{tmp_path}: the existing model is used, trained on own.npz for 3 epochs"
    assert capsys.readouterr().out == f"{text}\n"


def test_names_that_are_not_utf_8(tmp_path):
    """Old zip archives have such; they are printed with a backslash."""
    (tmp_path / "in").mkdir()
    path = os.fsencode(tmp_path / "in") + b"/M\xfcller.png"
    with open(path, "wb") as file:
        file.write(b"no picture")
    (tmp_path / "in" / "a.png").write_bytes(b"no picture")
    Image.new("L", (9, 9), 200).save(tmp_path / "in" / "b.png")
    words = ["in", "--output", "x.npz", "--skip-unreadable"]
    strict = {"PYTHONIOENCODING": "utf-8:strict"}
    process = example("pictures_to_npz", *words, cwd=tmp_path, **strict)
    assert process.returncode == 0, process.stderr
    assert "in/M\\udcfcller.png: damaged" in process.stdout


def test_files_are_written_whole_or_not_at_all(tmp_path, capsys):
    common = module("common")
    path = tmp_path / "new" / "a.txt"
    with common.new_file(path) as unfinished:
        unfinished.write_text("whole")
    with pytest.raises(KeyboardInterrupt), common.new_file(path) as unfinished:
        unfinished.write_text("half")
        raise KeyboardInterrupt
    assert [each.name for each in path.parent.iterdir()] == ["a.txt"]
    assert path.read_text() == "whole" and capsys.readouterr().out == f"wrote {path}\n"
    with pytest.raises(SystemExit, match="2"), common.new_file(path / "b.txt") as unfinished:
        unfinished.write_text("in a file as if it were a folder")
    assert capsys.readouterr().err.startswith(f"error: {path / 'b.txt'} cannot be written: ")


def test_what_native_code_prints_is_shown_where_the_user_asks_for_it(place, tmp_path):
    words = ["--count", 1, "--output", tmp_path / "new"]
    process = example("generate_digits", *words, cwd=place, TF_CPP_MIN_LOG_LEVEL="0")
    assert process.returncode == 0 and "cpu_feature_guard" in process.stderr


def test_a_crash_of_native_code_is_not_silent(bare, tmp_path):
    (tmp_path / "keras.py").write_text("import os\nos.abort()\n")
    words = WORDS["generate_digits"].split()
    process = example("generate_digits", *words, cwd=bare["cwd"], PYTHONPATH=str(tmp_path))
    assert process.returncode != 0
    assert "Fatal Python error: Aborted" in process.stderr and "keras.py" in process.stderr
