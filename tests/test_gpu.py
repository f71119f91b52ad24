"""Both scripts on a GPU: the same bits twice, resumed runs, mixed precision, and as on the CPU."""

import statistics

import pytest
from conftest import DENOISER, MODELS, VAE, metrics, same_end, trained
from test_interruptions import KILLED, SMALL, killed

BOTH = pytest.mark.parametrize("script", [DENOISER, VAE])
CPU = {"CUDA_VISIBLE_DEVICES": "-1"}
LONGER = ["--limit", 10000, "--epochs", 5]  # long enough to have learned something
KEYS = {DENOISER: "psnr", VAE: "negative_elbo"}


@pytest.fixture(scope="module", autouse=True)
def gpu():
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        pytest.skip("TensorFlow sees no GPU")


@pytest.fixture(scope="module")
def whole(gpu, tmp_path_factory):
    """The folder of an uninterrupted run of each script."""
    folder = tmp_path_factory.mktemp("whole")
    for script in (DENOISER, VAE):
        assert "training on GPU:0" in trained(script, *SMALL, cwd=folder).stdout
    return folder


@BOTH
def test_same_seed_same_bits(script, whole, tmp_path):
    trained(script, *SMALL, cwd=tmp_path)
    same_end(script, whole, tmp_path)


@BOTH
def test_killed_and_resumed_is_the_same_run(script, whole, tmp_path):
    assert killed("write", 2, script, cwd=tmp_path) == KILLED
    assert "resuming after epoch 2" in trained(script, *SMALL, "--resume", cwd=tmp_path).stdout
    same_end(script, whole, tmp_path)


@BOTH
def test_mixed_precision(script, whole, tmp_path):
    """It changes results, but by little."""
    trained(script, *SMALL, "--bfloat16", cwd=tmp_path)
    full, mixed = (metrics(folder / MODELS[script])[KEYS[script]] for folder in (whole, tmp_path))
    assert mixed != full and mixed == pytest.approx(full, rel=0.1)


@BOTH
def test_results_are_those_of_the_cpu(script, tmp_path):
    """The same within the spread of seeds: four standard deviations of five runs on the CPU."""
    results = []
    for seed in range(5):
        folder = tmp_path / str(seed)
        folder.mkdir()
        trained(script, *LONGER, "--seed", seed, cwd=folder, **CPU)
        results.append(metrics(folder / MODELS[script])[KEYS[script]])
    trained(script, *LONGER, cwd=tmp_path)
    on_gpu = metrics(tmp_path / MODELS[script])[KEYS[script]]
    spread = statistics.stdev(results)
    assert on_gpu == pytest.approx(statistics.mean(results), abs=4 * spread)
