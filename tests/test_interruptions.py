"""Runs that are killed, stopped or damaged: resumed ones end as if nothing had happened."""

import contextlib
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import DENOISER, MODELS, ROOT, VAE, metrics, same_end, trained_here

SMALL = ["--limit", "300", "--epochs", "5"]
KILLED = -signal.SIGKILL


QUICK = pytest.mark.quick


@pytest.fixture(scope="module")
def whole(modules, tmp_path_factory):
    """The folder of an uninterrupted run of each script."""
    folders = {script: tmp_path_factory.mktemp("whole") for script in modules}
    for script, folder in folders.items():
        trained_here(modules[script], *SMALL, cwd=folder)
    return folders


def killed(point, count, script, *arguments, cwd):
    """Run a script that kills itself at a point: see killer.py."""
    command = [sys.executable, Path(__file__).with_name("killer.py"), point, str(count)]
    command += [ROOT / script, *SMALL, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True).returncode


@pytest.fixture(scope="module")
def killed_run(tmp_path_factory):
    """The folder of a VAE's run that was killed as its fourth checkpoint was complete.

    It had --resume from its first start on, as a cluster repeats one command line.
    """
    folder = tmp_path_factory.mktemp("stopped")
    assert killed("write", 4, VAE, "--resume", cwd=folder) == KILLED
    return folder


@pytest.fixture
def stopped(killed_run, tmp_path):
    """A copy of killed_run, for a test to change."""
    return shutil.copytree(killed_run, tmp_path / "stopped")


def checkpoints(folder, script):
    return sorted(path.name for path in (folder / MODELS[script] / "checkpoints").iterdir())


def test_killed_and_resumed_is_the_same_run(whole, denoiser, tmp_path, script=DENOISER):
    draw = np.random.default_rng(len(script))
    assert killed("step", draw.integers(5, 8), script, cwd=tmp_path) == KILLED
    assert killed("half", 2, script, "--resume", cwd=tmp_path) == KILLED  # not at its place
    assert killed("remove", 1, script, "--resume", cwd=tmp_path) == KILLED
    text = trained_here(denoiser, *SMALL, "--resume", cwd=tmp_path)
    assert "resuming after epoch " in text
    same_end(script, whole[script], tmp_path)
    assert checkpoints(tmp_path, script) == []  # nor what was not at its place


def test_killed_from_outside_at_any_moment(whole, vae, tmp_path):
    """From the first second of training on, in writing too."""
    draw = np.random.default_rng(7)
    kills = 0
    for _ in range(2):
        command = [sys.executable, "-u", ROOT / VAE, *SMALL, "--resume"]
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
            while (line := process.stdout.readline()) and not line.startswith("models"):
                pass
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(draw.uniform(0.5, 3.5))
            kills += process.poll() is None
            process.kill()
    assert kills > 0
    trained_here(vae, *SMALL, "--resume", cwd=tmp_path)
    same_end(VAE, whole[VAE], tmp_path)


def test_a_run_is_resumed_and_then_says_that_it_is_finished(vae, stopped, whole, tmp_path):
    """In a process that has made other models, and in a folder whose name is a pattern."""
    words = [*SMALL, "--model-dir", "who[1]?*", "--resume"]
    (stopped / MODELS[VAE]).rename(stopped / "who[1]?*")
    assert "resuming after epoch 4 of 5" in trained_here(vae, *words, cwd=stopped)
    shutil.copytree(stopped / "who[1]?*", tmp_path / MODELS[VAE])
    same_end(VAE, whole[VAE], tmp_path)
    before = (stopped / "who[1]?*" / "metrics.json").stat().st_mtime_ns
    text = trained_here(vae, *words, cwd=stopped)
    assert text == "this run is finished; its results are in who[1]?*\n"
    assert (stopped / "who[1]?*" / "metrics.json").stat().st_mtime_ns == before
    with pytest.raises(vae.InputError, match="--resume: epochs must be 5, as before, found 6"):
        trained_here(vae, *words, "--epochs", 6, cwd=stopped)


SETTINGS = {"epochs": "2"}


def small_run(vae, folder, settings=SETTINGS):
    """Return a TrainingRun of a tiny VAE in a folder, which is made."""
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    model = vae.VAE(vae.build_encoder((8, 8, 1), 2), vae.build_decoder((8, 8, 1), 2))
    model.compile(vae.keras.optimizers.Adam())
    run = vae.TrainingRun(model, folder, settings)
    run.set_params({"epochs": 2})
    run.start = 0
    return run


def end_epoch(run, epoch, loss=1.0):
    """Change the weights, and end an epoch with a validation loss; return the weights."""
    ones = [np.ones(v.shape, np.float32) for v in run.model.trainable_variables]
    run.model.optimizer.apply(ones)
    names = [prefix + name for prefix in ("", "val_") for name in ("loss", "reconstruction", "kl")]
    run.on_epoch_end(epoch - 1, dict.fromkeys(names, loss))
    return [variable.numpy() for variable in run.variables]


@QUICK
def test_a_flipped_bit_anywhere_is_never_loaded(vae, tmp_path):
    run = small_run(vae, tmp_path)
    states = {epoch: end_epoch(run, epoch) for epoch in (1, 2)}
    draw, epochs = np.random.default_rng(0), []
    path = run.path(2)
    before = path.read_bytes()
    for _ in range(30):
        content = bytearray(before)
        place = draw.integers(len(content))
        if len(epochs) % 2:  # the headers and the directory of the zip file, not the arrays
            place = -1 - draw.integers(4000)
        content[place] ^= 1 << draw.integers(8)
        path.write_bytes(content)
        run.restore(True)
        epochs.append(run.done)
        for one, other in zip(states[epochs[-1]], run.variables, strict=True):
            np.testing.assert_array_equal(one, other.numpy())
    assert epochs.count(1) > 15 and set(epochs) <= {1, 2}  # 2 where a bit means nothing


@QUICK
def test_a_damaged_checkpoint_falls_back_to_the_one_before(vae, tmp_path, capsys):
    run = small_run(vae, tmp_path)
    states = [end_epoch(run, epoch) for epoch in (1, 2)]
    run.path(2).write_bytes(run.path(2).read_bytes()[:-5000])
    again = small_run(vae, tmp_path)
    again.restore(True)
    said = capsys.readouterr()
    assert re.search(r"epoch-000002.npz is damaged: .*\n$", said.err)
    assert "resuming after epoch 1 of 2" in said.out
    assert again.done == 1 and again.history["loss"] == [1]
    for one, other in zip(states[0], again.variables, strict=True):
        np.testing.assert_array_equal(one, other.numpy())
    for one, other in zip(states[1], end_epoch(again, 2), strict=True):
        np.testing.assert_array_equal(one, other)
    again.restore(True)
    assert again.done == 2


@QUICK
def test_the_best_epoch_is_kept_and_loaded(vae, tmp_path):
    """Beside the newest two, and after a restart as well."""
    run = small_run(vae, tmp_path)
    states = {}
    for epoch, loss in enumerate((3.0, 1.0, 2.0, 2.5, 2.2), start=1):
        states[epoch] = end_epoch(run, epoch, loss)
    assert [path.name for path in run.paths()] == [f"epoch-00000{n}.npz" for n in (5, 4, 2)]
    again = small_run(vae, tmp_path)
    again.restore(True)
    assert (again.done, again.best_epoch()) == (5, 2)
    again.load_best_weights()
    for one, other in zip(states[2], again.model.weights, strict=False):
        np.testing.assert_array_equal(one, other.numpy())
    assert (states[5][0] != again.model.weights[0].numpy()).any()


@QUICK
def test_two_runs_in_one_folder(vae, tmp_path):
    """The second one to write stops, whichever epoch it is in."""
    first, second = small_run(vae, tmp_path), small_run(vae, tmp_path)
    first.restore(True)
    second.restore(True)
    end_epoch(first, 1)
    with pytest.raises(vae.InputError, match="must be of one run, found files of another"):
        end_epoch(second, 1)


@QUICK
def test_a_run_of_another_model_is_not_taken_for_a_damaged_one(vae, tmp_path):
    end_epoch(small_run(vae, tmp_path), 1)
    other = small_run(vae, tmp_path, {"epochs": "3"})
    other.variables = [*other.variables, other.variables[0]]
    with pytest.raises(vae.InputError, match="epochs must be 2, as before, found 3"):
        other.restore(True)
    same = small_run(vae, tmp_path)
    same.path(1).write_bytes(b"PK")
    with pytest.raises(vae.InputError, match="must have a whole checkpoint, found damaged ones"):
        same.restore(True)
    assert [path.name for path in same.paths()] == ["epoch-000001.npz"]


def test_another_run_is_not_resumed(vae, stopped):
    reason = "--resume: learning_rate must be 0.003, as before, found 0.002"
    with pytest.raises(vae.InputError, match=reason):
        trained_here(vae, *SMALL, "--resume", "--learning-rate", 0.002, cwd=stopped)


@QUICK
def test_a_changed_script_is_another_run(vae, tmp_path, monkeypatch):
    """Whatever has changed in it: a layer, a loss, or a constant."""
    options, images = vae.parse_options([]), np.zeros((30, 8, 8, 1), np.uint8)
    then = vae.run_settings(options, images, images)
    text = (ROOT / VAE).read_text()
    changed = text.replace("ADAM_WEIGHT_DECAY = 0.05", "ADAM_WEIGHT_DECAY = 0.04")
    assert changed != text
    (tmp_path / VAE).write_text(changed)
    monkeypatch.setattr(vae, "__file__", str(tmp_path / VAE))
    now = vae.run_settings(options, images, images)
    with pytest.raises(vae.InputError, match=r"--resume: script \(CRC-32\) must be "):
        vae.need_same_settings(then, now)


def interruptible():
    """Undo that a shell made its background commands deaf to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_user_or_a_cluster_stops_a_run(sent, tmp_path, script=DENOISER):
    """A log file, which is no terminal, has the lines so far."""
    command = [sys.executable, ROOT / script, "--limit", "300", "--epochs", "500"]
    path = tmp_path / "log"
    with (
        path.open("w") as log,
        subprocess.Popen(
            command,
            cwd=tmp_path,
            stdout=log,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=interruptible,
        ) as process,
    ):
        while "\nepoch 2 of" not in path.read_text():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(sent)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    said = re.fullmatch(r"stopped after epoch (\d+); continue with --resume\n", errors)
    assert said, errors
    assert checkpoints(tmp_path, script)[-1] == f"epoch-{int(said.group(1)):06}.npz"
    text = path.read_text()
    assert text.startswith("training on CPU:0\nmodels go to models/denoiser, pictures to images\n")
    assert "images (28, 28, 1): 300 to train, 60 to validate, 60 to test\n" in text


@pytest.mark.parametrize("script", [DENOISER, VAE])
def test_a_finished_run_is_trained_further(script, whole, modules, tmp_path, monkeypatch):
    """At a rate of almost nothing, the new run ends where the finished one did.

    When it is stopped and resumed, it goes on from its own weights. Options of the evaluation
    may be others.
    """
    module = modules[script]

    class Stop(module.keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    calls = []
    load_weights = module.load_weights
    monkeypatch.setattr(module, "load_weights", lambda *a: calls.append(load_weights(*a)))
    folder = whole[script] / MODELS[script]
    words = ["--limit", 300, "--epochs", 2, "--learning-rate", 1e-9, "--start-from", folder]
    words += ["--model-dir", "further", "--resume"]
    with pytest.raises(KeyboardInterrupt, match="stopped after epoch 1; continue with --resume"):
        trained_here(module, *words, cwd=tmp_path, callbacks=[Stop()])
    words += ["--importance-samples", 3] if script == VAE else []
    assert "resuming after epoch 1" in trained_here(module, *words, cwd=tmp_path)
    assert len(calls) == 1
    before, after = metrics(folder), metrics(tmp_path / "further")
    key = {DENOISER: "psnr", VAE: "kl"}[script]
    assert after[key] == pytest.approx(before[key], rel=1e-4)
    assert after["start_from"] == str(folder)
    if script == VAE:
        assert (before["importance_samples"], after["importance_samples"]) == (50, 3)
        assert after["negative_iwae_bound"] > before["negative_iwae_bound"]


def test_weights_that_do_not_fit_or_are_damaged(whole, vae, tmp_path):
    folder = whole[VAE] / MODELS[VAE]
    words = [*SMALL, "--latent-dim", 3, "--start-from"]
    reason = f"--start-from {folder} must have encoder.keras with the same shapes, found"
    with pytest.raises(vae.InputError, match=re.escape(reason)):
        trained_here(vae, *words, folder, cwd=tmp_path)
    assert not [*tmp_path.iterdir()]
    models = {"encoder": vae.build_encoder((28, 28, 1), 2)}
    with pytest.raises(vae.InputError, match=r"must have encoder\.keras"):
        vae.load_weights(tmp_path, models)
    content = bytearray((folder / "encoder.keras").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "encoder.keras").write_bytes(content)
    with pytest.raises(vae.InputError, match=r"must have encoder\.keras"):
        vae.load_weights(tmp_path, models)


def test_an_unfinished_run_is_not_replaced(vae, stopped):
    before = checkpoints(stopped, VAE)
    assert before[-1] == "epoch-000004.npz"
    reason = "models/vae/checkpoints must be empty without --resume, found a run"
    with pytest.raises(vae.InputError, match=reason):
        trained_here(vae, *SMALL, cwd=stopped)
    assert checkpoints(stopped, VAE) == before


def test_a_loss_that_is_not_finite_stops_the_run(vae, tmp_path):
    """At a rate of 10 the VAE's loss is lost at once, and no checkpoint of it is written."""
    words = ["--limit", 300, "--epochs", 3, "--learning-rate", 10]
    with pytest.raises(vae.InputError, match=r"the loss must be finite, found epoch .*nan"):
        trained_here(vae, *words, cwd=tmp_path)
    assert "metrics.json" not in [path.name for path in tmp_path.rglob("*")]


@QUICK
def test_a_failed_write_leaves_the_old_file(vae, tmp_path):
    path = tmp_path / "figure.png"
    path.write_text("old")

    def write(scratch):
        scratch.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        vae.replace(path, write)
    assert [p.name for p in tmp_path.iterdir()] == ["figure.png"] and path.read_text() == "old"
