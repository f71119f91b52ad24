"""The benchmarks: versions of results, tables against plain NumPy, variants of the scripts."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import results
import run as benchmarks
import tables
import variants

QUICK = pytest.mark.quick
PAGE = ROOT / "benchmarks" / "RESULTS.md"


@pytest.fixture
def few_lines(tmp_path, monkeypatch):
    """Results in a file of their own: a default run of each script, without a CRC-32."""
    monkeypatch.setattr(results, "FILE", tmp_path / "results.jsonl")
    metrics = dict.fromkeys([*tables.VAE_COLUMNS, *tables.DENOISER_COLUMNS, *tables.SIZES], 1.0)
    common = {"part": "default", "case": "threads: 2", "arguments": [], "seed": 0}
    lines = [common | {"program": name, "script": name, "metrics": metrics} for name in results.CRC]
    results.FILE.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return metrics


@QUICK
def test_the_page_has_the_tables_of_the_results():
    text = PAGE.read_text()
    assert text == tables.filled(text)
    names = set(re.findall(r"<!-- table: (.*) -->", text))
    assert names == {*tables.TABLES, "versions"} and text.count("<!-- end -->") == len(names)


@QUICK
def test_a_result_counts_for_the_version_of_the_script_that_made_it(few_lines):
    key = {"part": "default", "program": results.VAE, "case": "threads: 2"}
    key |= {"arguments": [], "seed": 0}
    assert results.find(**key) is None  # of an unknown version
    results.keep(results.VAE, few_lines, **key)
    line = results.find(**key)
    assert line["crc"] == results.CRC[results.VAE] and line["commit"].startswith(results.COMMIT)
    assert {"processor", "threads", "python", "tensorflow", "keras", "numpy"} <= set(
        line["machine"]
    )
    assert len(results.read()) == 2  # the newer line replaces the old one
    other = key | {"program": "keras-vae"}
    assert results.once(results.VAE, lambda: few_lines, **other) == few_lines
    assert results.once(results.VAE, pytest.fail, **other) == few_lines


@QUICK
def test_a_table_of_two_versions_of_a_script_is_refused(few_lines, capsys):
    key = {"part": "small", "program": results.VAE, "arguments": [], "seed": 0}
    results.keep(results.VAE, few_lines, **key)
    tables.make_table("denoiser")  # of the other script
    with pytest.raises(SystemExit) as end:
        tables.make_table("vae")
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "two versions of VariationalAutoEncoder_tf2.py" in error
    assert error.endswith("run: python benchmarks/run.py default\n")
    key = {"part": "default", "program": results.VAE, "case": "threads: 2", "arguments": []}
    results.keep(results.VAE, few_lines, **key, seed=0)
    assert "ours, at most" in tables.make_table("vae")  # now both are of this version


@QUICK
def test_a_table_says_what_was_not_measured(few_lines):
    assert tables.make_table("own") == "Not measured yet: `python benchmarks/run.py own`."


@QUICK
def test_means_and_deviations_of_the_page_by_numpy():
    """From the lines themselves, for rows of three tables."""
    page = PAGE.read_text()
    lines = [json.loads(line) for line in results.FILE.read_text().splitlines()]

    def cell(values):
        return f"{np.mean(values):.2f} ± {np.sqrt(np.sum((values - np.mean(values)) ** 2) / 2):.2f}"

    for part, program, metric, start in (
        ("long", results.VAE, "negative_elbo", "| ours, 96 epochs | `python Var"),
        ("small", results.VAE, "negative_iwae_bound", "| ours, at most the example's parameters"),
        ("keras-denoiser", "keras-denoiser", "psnr", "| Keras denoising example | `"),
    ):
        found = [x for x in lines if x["part"] == part and x["program"] == program]
        values = np.array([x["metrics"][metric] for x in found])
        row = next(row for row in page.splitlines() if row.startswith(start))
        assert len(values) == 3 and f"| {cell(values)} |" in row


@QUICK
def test_the_version_of_a_script_is_without_the_ranges_that_follow_from_its_results(
    tmp_path, monkeypatch
):
    text = results.PATHS[results.VAE].read_text()
    ranges = results.RANGE.findall(text.encode())
    assert len(ranges) == 4
    monkeypatch.setitem(results.PATHS, results.VAE, tmp_path / "vae.py")
    for found, other in ((ranges[0].decode(), '"1.5 to 2.5"'), ("EPOCHS = 12", "EPOCHS = 13")):
        assert text.count(found) == 1
        (tmp_path / "vae.py").write_text(text.replace(found, other))
        is_same = results.crc_of(results.VAE) == results.CRC[results.VAE]
        assert is_same == ("to" in found)


@QUICK
def test_trainings_on_noisy_and_on_clean_images_become_columns():
    metrics = {"psnr": 30.0, "noisy_psnr": 20.0, "psnr_of_flips": 30.5}
    names = ("noisy images", "clean images")
    noisy, clean = (
        tables.by_training([{"case": f"cat: {name}", "metrics": metrics}])[0] for name in names
    )
    assert noisy["case"] == clean["case"] == "cat"
    assert noisy["metrics"] == {"noisy images": 30.0, "noisy_psnr": 20.0, "flips": 30.5}
    assert clean["metrics"] == {"clean images": 30.0}


@QUICK
def test_commit_is_marked_where_python_files_differ(monkeypatch):
    said = {"rev-parse": "abc", "status": ""}
    monkeypatch.setattr(results, "git", lambda *words: said[words[0]])
    assert results.commit() == "abc"
    said["status"] = " M VariationalAutoEncoder_tf2.py"
    assert results.commit() == "abc-dirty"


@QUICK
def test_the_parts_are_listed_with_their_time():
    words = [sys.executable, ROOT / "benchmarks/run.py", "--help"]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    for name, (_, _, minutes, said) in benchmarks.PARTS.items():
        assert re.search(rf"^  {name} +{minutes}  {re.escape(said)}$", text, re.MULTILINE)


def test_the_iwae_bound_rises_to_the_integral_over_the_latent_space(vae):
    """A smooth decoder, so that a good share of the samples from the prior count."""
    images = vae.split_images(vae.load_arrays("mnist"), "mnist")[2][:40]
    normal = vae.keras.initializers.RandomNormal
    hidden = vae.layers.Dense(32, "tanh", kernel_initializer=normal(stddev=1, seed=0))
    pixels = vae.layers.Dense(784, kernel_initializer=normal(stddev=0.05, seed=1))
    layers = [vae.keras.Input((2,)), hidden, pixels, vae.layers.Reshape((28, 28, 1))]
    decoder = vae.keras.Sequential(layers)
    axis, step = np.linspace(-6, 6, 241), 0.05
    z = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    logits = decoder.predict(z, batch_size=5000, verbose=0).reshape(len(z), -1).astype(float)
    x = images.reshape(len(images), -1) / 255
    log_joint = x @ logits.T - np.logaddexp(0, logits).sum(axis=1)
    log_joint -= (z**2).sum(axis=1) / 2 + np.log(2 * np.pi)
    integral = (np.logaddexp.reduce(log_joint, axis=1) + 2 * np.log(step)).mean()

    def prior(x):  # in place of q(z|x): the bound holds for any
        zeros = vae.tf.zeros((vae.tf.shape(x)[0], 2))
        return zeros, zeros

    estimates = [vae.evaluate(prior, decoder, images, count, seed=1) for count in (5, 50, 5000)]
    bounds = [-estimates[2]["negative_elbo"], *(-each["negative_iwae_bound"] for each in estimates)]
    assert bounds == sorted(bounds)  # from the ELBO up, with the number of samples
    assert bounds[-1] == pytest.approx(integral, abs=0.1) and bounds[0] < integral - 0.5


@QUICK
def test_digits_are_binarized_anew_in_every_batch():
    """Each pixel is 0 or 1, and 1 as often as its brightness says; epsilon comes with it."""
    script = benchmarks.load(results.VAE)
    gray = np.full((4000, 8, 8, 1), 0.3, np.float32)
    variants.binarized(script)
    first, _, epsilon = script.vae_batch(gray, (0, 1), latent_dim=3, is_mixed=True)
    second, *_ = script.vae_batch(gray, (0, 2), latent_dim=3, is_mixed=True)
    assert set(np.unique(first)) == {0, 1} and (first != second).numpy().any()
    assert np.mean(first) == pytest.approx(0.3, abs=0.015)
    assert epsilon.shape == (4000, 3) and np.std(epsilon) == pytest.approx(1, abs=0.03)
    arrays = {f"x_{name}": np.uint8(255 * gray[:100]) for name in ("train", "val", "test")}
    tests = [script.split_images(arrays, "file")[2] for _ in range(2)]
    assert set(np.unique(tests[0])) == {0, 255} and (tests[0] == tests[1]).all()


@QUICK
def test_the_small_models_are_not_larger_than_the_examples():
    images = np.zeros((64, 28, 28, 1), np.uint8)
    for name in results.CRC:
        script = benchmarks.load(name)
        variants.small(script)
        rate = script.learning_rate(1e-3, 100)
        if name == results.VAE:
            model = script.build_vae(images, 2, 1.0, rate)
            example = sum(
                each.count_params() for each in variants.example_vae(script, (28, 28, 1), 2)
            )
            bias = model.encoder.get_layer("conv0").bias
            assert np.shape(bias) == (8,)  # a quarter of 32
        else:
            model = script.build_denoiser(images, rate)[1]
            example = variants.example_denoiser(script)[1].count_params()
        assert 0.8 * example < model.count_params() <= example


@pytest.mark.parametrize("name", ["own-keras-vae", "own-five-level-vae"])
def test_a_peer_trains_on_rgb_images_by_the_clock(name, tmp_path, monkeypatch):
    """One epoch where no time is left."""
    draw = np.random.default_rng(0)
    np.savez(tmp_path / "own.npz", x_train=draw.integers(0, 256, (300, 64, 64, 3), dtype=np.uint8))
    monkeypatch.setattr(variants, "OWN_SECONDS", 0)
    words = ["--data", tmp_path / "own.npz", "--latent-dim", 16, "--epochs", 1000]
    words += ["--importance-samples", 2, "--model-dir", tmp_path]
    variants.main(name, results.VAE, *map(str, words))
    assert (tmp_path / "history.csv").read_text().count("\n") == 2
    assert np.isfinite(json.loads((tmp_path / "metrics.json").read_text())["negative_elbo"])


@QUICK
def test_near_copies_are_in_one_part():
    import own_pictures

    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    images = images[:, :16, :16].repeat(4, axis=1).repeat(4, axis=2)  # patterns that stay in gray
    tinted = np.uint8(images * [1.0, 0.9, 0.8])
    parts = own_pictures.split(np.concatenate([images, tinted]))
    assert [len(parts[name]) for name in ("x_test", "x_val", "x_train")] == [8, 8, 64]
    for one in parts.values():
        gray = one.mean(axis=(1, 2, 3))
        assert len(one) % 2 == 0 and len(gray) == len(one)
    numbers = own_pictures.near_copies(np.concatenate([images, tinted]))
    assert (numbers[:40] == numbers[40:]).all() and len(set(numbers)) == 40


@QUICK
def test_psnr_of_decoded_codes():
    import own_pictures

    images = np.random.default_rng(0).random((2, 8, 8, 3)).astype(np.float32)
    encoder = SimpleNamespace(predict=lambda x, **_: (x, x))
    decoder = SimpleNamespace(predict=lambda z, **_: z + 0.1)
    assert own_pictures.psnr(encoder, decoder, images) == pytest.approx(20, abs=1e-4)
