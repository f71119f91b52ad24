"""Picture files in and out: names, sizes, formats, and nothing overwritten unless asked to."""

import ast
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import keras  # here, because it sets variables that later commands would get
import numpy as np
import pytest
from conftest import DENOISER, MODELS, ROOT, VAE, refused, trained
from PIL import Image, ImageCms
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
        path = place / "photos" / "ab"[index % 2] / f"{index:02}.{SUFFIXES[index % 4]}"
        draw(path, mode="RGB", seed=index)
    draw(place / "photos" / "b" / "._02.png")  # as macOS leaves them behind
    (place / "photos" / "notes.txt").write_text("no picture")
    worked("prepare_data", "photos", "--output", "photos.npz", cwd=place)
    trained(DENOISER, "--data", "photos.npz", "--epochs", 1, cwd=place)
    trained(VAE, "--data", "photos.npz", "--epochs", 1, "--latent-dim", 5, cwd=place)
    assert len(list((place / "images").glob("*.png"))) == 8
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
    text = worked("denoise_pictures", *words, cwd=place)
    assert "1 files have several pages or frames; the first of each is used" in text
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
    words = ["photos.npz", "--output", tmp_path / "codes.npz"]
    worked("encode_images", *words, cwd=place)
    codes, arrays = arrays_of(tmp_path / "codes.npz"), arrays_of(place / "photos.npz")
    encoder = keras.models.load_model(place / MODELS[VAE] / "encoder.keras")
    z_mean, z_log_sigma = encoder.predict(np.float32(arrays["x_train"]) / 255, verbose=0)
    np.testing.assert_allclose(codes["z_mean"], z_mean, atol=1e-5)
    np.testing.assert_allclose(codes["z_log_sigma"], z_log_sigma, atol=1e-5)
    np.testing.assert_array_equal(codes["labels"], arrays["y_train"])
    np.testing.assert_array_equal(codes["names"], arrays["names_train"])
    refused(example("encode_images", *words, cwd=place), "codes.npz exists; --force")
    np.savez(tmp_path / "other.npz", x_train=np.zeros((5, 28, 28), np.uint8))
    words = [tmp_path / "other.npz", "--output", tmp_path / "no.npz"]
    refused(
        example("encode_images", *words, cwd=place),
        "x_train must be images on the first axis",
        "found uint8 (5, 28, 28)",
    )


@pytest.mark.parametrize("words", ["denoise_pictures photos", "generate_digits"])
def test_no_model(words, place, tmp_path):
    name, *words = words.split()
    process = example(name, *words, "--output", tmp_path / "x", "--model-dir", "none", cwd=place)
    refused(process, "none/", "does not exist")
    assert not (tmp_path / "x").exists()


MODEL_FILES = ("denoiser/model", "denoiser/encoder", "vae/encoder", "vae/decoder")
PACKAGES = (
    "tensorflow",
    "keras",
    "numpy",
    "matplotlib",
    "h5py",
    "tifffile",
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
    "prepare_data": ". --output b.npz",
    "plane_forming": "",
    "pretraining": "--model-dir .",
}


def test_every_example_is_among_them():
    assert {*WORDS, "common", "pictures"} == {path.stem for path in FOLDER.glob("*.py")}


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
        ("prepare_data none --output out.npz", "argument WHAT: none does not exist"),
        ("prepare_data . --output out.npz --size 5", "argument --size: 5: accepted: 8 to 256"),
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


def test_examples_import_nothing_of_the_project_but_two_modules():
    """common.py loads a script when asked, and imports only the standard library at its top."""
    project = {path.stem for path in (*ROOT.glob("*.py"), *ROOT.glob("*/*.py"))}
    imported = {}
    for path in FOLDER.glob("*.py"):
        packages, _ = imports_and_names(ast.parse(path.read_text()))
        imported[path.stem] = packages & project
        assert "sys.path" not in path.read_text() or path.stem == "common"
    assert imported.pop("common") == {VAE.removesuffix(".py")}
    assert all({"common"} <= names <= {"common", "pictures"} for names in imported.values())
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
    if "pictures" in packages:
        packages |= imports_and_names(ast.parse((FOLDER / "pictures.py").read_text()))[0]
    return packages - {"common", "pictures", "umap", VAE.removesuffix(".py")}  # works without umap


@pytest.mark.parametrize("name", WORDS)
def test_an_example_names_the_packages_that_it_needs(name):
    path = FOLDER / f"{name}.py"
    header = path.read_text().partition("# ///\n")[0]
    named = set(re.findall(r'"([a-z0-9-]+)[=>]', header))
    of_module = {"PIL": "pillow", "sklearn": "scikit-learn", "skimage": "scikit-image"}
    needed = {of_module.get(package, package) for package in needed_packages(path)}
    assert needed and needed <= named


@pytest.mark.parametrize(
    "arrays, text",
    [
        ({"x_train": np.zeros((5, 8, 8))}, "a.npz must have x_test, found x_train"),
        ({"z_mean": np.zeros((5, 2))}, "a.npz: ValueError: no x_train in z_mean; "),
        ({"x_test": np.zeros((5, 8, 9))}, "x_test must have images (8, 8, 1), found (8, 9, 1)"),
        ({"x_test": np.zeros((0, 8, 8))}, "found float64 (0, 8, 8)"),
        ({"x_test": np.full((5, 8, 8), 7)}, "a.npz: x_test must be images on the first axis: "),
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
    """Numbers or text from 0 to 9, as prepare_data.py has them of folders; no others."""
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
