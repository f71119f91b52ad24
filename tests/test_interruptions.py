"""Runs that are killed, stopped or damaged: resumed ones end as if nothing had happened."""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import DENOISER, MODELS, ROOT, VAE, metrics, refused, run, same_end, trained

SMALL = ["--limit", "300", "--epochs", "5"]
KILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an uninterrupted run of each script."""
    folders = {script: tmp_path_factory.mktemp("whole") for script in (DENOISER, VAE)}
    for script, folder in folders.items():
        trained(script, *SMALL, cwd=folder)
    return folders


def killed(point, count, script, *arguments, cwd):
    """Run a script that kills itself at a point: see killer.py."""
    command = [sys.executable, Path(__file__).with_name("killer.py"), point, str(count)]
    command += [ROOT / script, *SMALL, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True).returncode


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The folder of a VAE's run that was killed as its fourth checkpoint was complete."""
    folder = tmp_path_factory.mktemp("stopped")
    assert killed("write", 4, VAE, cwd=folder) == KILLED
    return folder


def checkpoints(folder, script):
    return sorted(path.name for path in (folder / MODELS[script] / "checkpoints").iterdir())


def test_killed_and_resumed_is_the_same_run(whole, tmp_path, script=DENOISER):
    draw = np.random.default_rng(len(script))
    assert killed("step", draw.integers(5, 8), script, cwd=tmp_path) == KILLED
    step = draw.integers(1, 5)  # in the same epoch, for the second time
    assert killed("step", step, script, "--resume", cwd=tmp_path) == KILLED
    assert killed("write", 2, script, "--resume", cwd=tmp_path) == KILLED  # before one is dropped
    assert killed("remove", 1, script, "--resume", cwd=tmp_path) == KILLED  # one file of two gone
    process = trained(script, *SMALL, "--resume", cwd=tmp_path)
    assert "resuming after epoch 4 of 5" in process.stdout
    same_end(script, whole[script], tmp_path)
    assert [name for name in checkpoints(tmp_path, script) if name.endswith(".index")] == []


def test_killed_from_outside_at_any_moment(whole, tmp_path):
    """From the first second of training on, in writing too, until a run comes to its end."""
    draw = np.random.default_rng(7)
    kills, arguments = 0, []
    while True:
        command = [sys.executable, "-u", ROOT / VAE, *SMALL, *arguments]
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
            while (line := process.stdout.readline()) and not line.startswith("models"):
                pass
            try:
                process.wait(draw.uniform(0.5, 3.5 + kills))  # longer, if it never gets on
                assert process.returncode == 0
                break
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
        # A run that was killed as it ended has removed its checkpoints: a new one replaces it.
        unfinished = list((tmp_path / MODELS[VAE] / "checkpoints").glob("*.index"))
        arguments = ["--resume"] if unfinished else []
    assert kills > 0
    same_end(VAE, whole[VAE], tmp_path)


def test_a_new_run_over_a_finished_one_has_nothing_of_it(whole, tmp_path):
    """Killed in its first epoch, it cannot be resumed from what the finished run left."""
    shutil.copytree(whole[DENOISER], tmp_path, dirs_exist_ok=True)
    assert killed("step", 2, DENOISER, cwd=tmp_path) == KILLED
    refused(run(DENOISER, *SMALL, "--resume", cwd=tmp_path), "--resume", "no readable checkpoint")


@pytest.mark.parametrize("damage", ["flip the index", "truncate the data"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(damage, stopped, whole, tmp_path):
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    (path,) = (tmp_path / MODELS[VAE] / "checkpoints").glob(f"epoch-000004.{damage.split()[-1]}*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content if "flip" in damage else content[: len(content) // 2])
    process = trained(VAE, *SMALL, "--resume", cwd=tmp_path)
    assert re.search(r"epoch-000004 is damaged: .*; trying the one before\n$", process.stderr)
    assert "resuming after epoch 3 of 5" in process.stdout
    same_end(VAE, whole[VAE], tmp_path)


def test_a_flipped_bit_anywhere_is_never_loaded(vae, tmp_path):
    networks = [vae.build_encoder((8, 8, 1), 2), vae.build_decoder((8, 8, 1), 2)]
    model = vae.VAE(*networks)
    model.compile(vae.keras.optimizers.Adam())
    model.optimizer.build(model.trainable_variables)
    settings = vae.run_settings(model, networks, np.zeros(3), SimpleNamespace(epochs=2))
    log = vae.TrainingLog(tmp_path, is_chief=True)
    log.set_params({"epochs": 2})
    checkpoints = vae.Checkpoints(tmp_path, model, log, settings)
    variables = model.weights + model.optimizer.variables
    names = [prefix + name for prefix in ("", "val_") for name in vae.CURVES]
    states = {}
    for epoch in (1, 2):
        log.on_epoch_end(epoch - 1, dict.fromkeys(names, 1.0))
        checkpoints.on_epoch_end(epoch - 1)
        states[epoch] = [variable.numpy() for variable in variables]
        model.optimizer.apply([vae.tf.ones_like(v) for v in model.trainable_variables])
    draw, epochs = np.random.default_rng(0), []
    for path in [*tmp_path.glob("epoch-000002.*")] * 40:
        before = path.read_bytes()
        content = bytearray(before)
        content[draw.integers(len(content))] ^= 1 << draw.integers(8)
        path.write_bytes(content)
        epochs.append(checkpoints.restore(True))
        for one, other in zip(states[epochs[-1]], variables, strict=True):
            np.testing.assert_array_equal(one, other.numpy())
        path.write_bytes(before)
    assert epochs.count(1) > 70 and set(epochs) <= {1, 2}  # 2 where a bit means nothing


def test_another_run_is_not_resumed(stopped):
    for option, then, now in (("--limit", 300, 310), ("--learning-rate", 0.003, 0.002)):
        process = run(VAE, *SMALL, "--resume", option, now, cwd=stopped)
        name = option[2:].replace("-", "_")
        refused(
            process, f"--resume: {name} was {then} and is {now}", "delete models/vae/checkpoints"
        )


def test_a_changed_model_is_named(stopped, tmp_path):
    """Two layers of equal shape change places, and all variables would fit."""
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    (tmp_path / "data").symlink_to(ROOT / "data")
    text = (ROOT / VAE).read_text()
    two = ["        x = layers.LayerNormalization()(x)\n", "        x = layers.ReLU()(x)\n"]
    swapped = text.replace("".join(two), "".join(two[::-1]))
    assert swapped != text
    (tmp_path / VAE).write_text(swapped)
    process = run(tmp_path / VAE, *SMALL, "--resume", cwd=tmp_path)
    refused(process, "--resume: model (CRC-32) was")
    assert "damaged" not in process.stderr


@pytest.mark.parametrize(
    "changed, text",
    [
        ("vae.compile(ConvMuon(rate, adam_beta_2=0.9))", "weight_decay of the"),
        ("vae.compile(keras.optimizers.SGD(rate))", "optimizer was ConvMuon"),
    ],
)
def test_a_changed_optimizer_is_named(changed, text, stopped, tmp_path):
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    (tmp_path / "data").symlink_to(ROOT / "data")
    source = (ROOT / VAE).read_text()
    compiled = "vae.compile(vae_optimizer(rate))"
    assert compiled in source
    (tmp_path / VAE).write_text(source.replace(compiled, changed))
    process = run(tmp_path / VAE, *SMALL, "--resume", cwd=tmp_path)
    refused(process, "--resume: ", text)


TWICE = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import VariationalAutoEncoder_tf2 as vae
words = sys.argv[1:]
vae.build_encoder((28, 28, 1), 2)  # takes layer names that are numbered
vae.main(vae.parse_options(words + ["--resume"]))
vae.main(vae.parse_options(words))
"""


def test_a_run_resumes_in_a_process_that_has_made_other_models(stopped, whole, tmp_path):
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    command = [sys.executable, "-c", TWICE, ROOT, *SMALL]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "resuming after epoch 4 of 5" in process.stdout
    same_end(VAE, whole[VAE], tmp_path)  # of the second run, from the start


def interruptible():
    """Undo that a shell made its background commands deaf to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_user_stops_a_run(tmp_path, script=DENOISER):
    command = [sys.executable, "-u", ROOT / script, "--limit", "300", "--epochs", "500"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    pipes["preexec_fn"] = interruptible
    with subprocess.Popen(command, cwd=tmp_path, **pipes) as process:
        while not process.stdout.readline().startswith("epoch 2 of"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    said = re.fullmatch(r"stopped after epoch (\d+); continue with --resume\n", errors)
    assert said, errors
    newest = f"epoch-{int(said.group(1)):06}.index"
    assert [name for name in checkpoints(tmp_path, script) if "index" in name][-1] == newest


@pytest.mark.parametrize("script", [DENOISER, VAE])
def test_a_finished_run_is_trained_further(script, whole, tmp_path):
    """At a rate of almost nothing, the new run ends where the finished one did."""
    folder = whole[script] / MODELS[script]
    words = ["--limit", 300, "--epochs", 1, "--learning-rate", 1e-9, "--start-from", folder]
    trained(script, *words, "--model-dir", "further", cwd=tmp_path)
    before, after = metrics(folder), metrics(tmp_path / "further")
    key = {DENOISER: "psnr", VAE: "negative_elbo"}[script]
    assert after[key] == pytest.approx(before[key], rel=1e-4)
    assert after["start_from"] == str(folder)


def test_a_run_of_another_shape_is_not_trained_further(whole, tmp_path):
    folder = whole[VAE] / MODELS[VAE]
    words = [*SMALL, "--latent-dim", 3, "--start-from"]
    process = run(VAE, *words, folder, cwd=tmp_path)
    refused(process, f"--start-from {folder}: accepted: a run with images of the same shape")
    refused(run(VAE, *words, tmp_path, cwd=tmp_path), "encoder.keras")
    refused(run(VAE, *words, "none", cwd=tmp_path), "--start-from none: accepted: the folder")
    process = run(VAE, "--resume", "--start-from", folder, cwd=tmp_path)
    refused(process, "--start-from", "not allowed with argument --resume")
    assert not list(tmp_path.iterdir())


def test_an_unfinished_run_is_not_replaced(stopped):
    before = checkpoints(stopped, VAE)
    assert before[-1] == "epoch-000004.index"
    refused(
        run(VAE, *SMALL, cwd=stopped),
        "unfinished run: --resume it, or delete models/vae/checkpoints",
    )
    assert checkpoints(stopped, VAE) == before


def test_nothing_to_resume(tmp_path, script=DENOISER):
    refused(run(script, *SMALL, "--resume", cwd=tmp_path), "no readable checkpoint", MODELS[script])
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    """At a rate of 10 the VAE's loss is lost at once: one line, and no checkpoint of it."""
    process = run(VAE, "--limit", 300, "--epochs", 3, "--learning-rate", 10, cwd=tmp_path)
    refused(process, "epoch ", "nan", "delete models/vae/checkpoints", "--learning-rate")
    records = [path.name for path in (tmp_path / MODELS[VAE]).rglob("*") if path.is_file()]
    assert "metrics.json" not in records


def test_a_failed_write_leaves_the_old_file(vae, tmp_path):
    path = tmp_path / "figure.png"
    path.write_text("old")

    def write(scratch):
        scratch.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        vae.save(path, write)
    assert [p.name for p in tmp_path.iterdir()] == ["figure.png"] and path.read_text() == "old"
