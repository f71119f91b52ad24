"""Runs that are killed, stopped or damaged: resumed ones end as if nothing had happened."""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

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
    assert killed("half", 2, script, "--resume", cwd=tmp_path) == KILLED  # not at its place
    assert killed("write", 2, script, "--resume", cwd=tmp_path) == KILLED  # before one is dropped
    assert killed("remove", 1, script, "--resume", cwd=tmp_path) == KILLED
    process = trained(script, *SMALL, "--resume", cwd=tmp_path)
    assert "resuming after epoch " in process.stdout
    same_end(script, whole[script], tmp_path)
    assert checkpoints(tmp_path, script) == []  # nor what was not at its place


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
        arguments = ["--resume"]
    assert kills > 0
    same_end(VAE, whole[VAE], tmp_path)


def test_one_command_line_starts_and_continues_and_says_that_it_is_finished(whole, tmp_path):
    """As a cluster repeats it: with --resume from the first start on."""
    assert killed("write", 3, VAE, "--resume", cwd=tmp_path) == KILLED
    assert "resuming after epoch 3" in trained(VAE, *SMALL, "--resume", cwd=tmp_path).stdout
    same_end(VAE, whole[VAE], tmp_path)
    before = (tmp_path / MODELS[VAE] / "metrics.json").stat().st_mtime_ns
    process = trained(VAE, *SMALL, "--resume", cwd=tmp_path)
    assert process.stdout == "this run is finished; its results are in models/vae\n"
    assert (tmp_path / MODELS[VAE] / "metrics.json").stat().st_mtime_ns == before
    process = run(VAE, "--limit", 300, "--epochs", 6, "--resume", cwd=tmp_path)
    refused(process, "--resume: epochs must be 5, as before, found 6")


def test_options_of_the_evaluation_are_free(stopped, tmp_path):
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    trained(VAE, *SMALL, "--resume", "--importance-samples", 3, cwd=tmp_path)
    assert metrics(tmp_path / MODELS[VAE])["importance_samples"] == 3


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(damage, stopped, whole, tmp_path):
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    path = tmp_path / MODELS[VAE] / "checkpoints" / "epoch-000004.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content if "flip" in damage else content[: len(content) // 2])
    process = trained(VAE, *SMALL, "--resume", cwd=tmp_path)
    assert re.search(r"epoch-000004.npz is damaged: .*\n$", process.stderr)
    assert "resuming after epoch 3 of 5" in process.stdout
    same_end(VAE, whole[VAE], tmp_path)


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


def test_a_flipped_bit_anywhere_is_never_loaded(vae, tmp_path):
    run = small_run(vae, tmp_path)
    states = {epoch: end_epoch(run, epoch) for epoch in (1, 2)}
    draw, epochs = np.random.default_rng(0), []
    path = run.path(2)
    before = path.read_bytes()
    for _ in range(60):
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
    assert epochs.count(1) > 30 and set(epochs) <= {1, 2}  # 2 where a bit means nothing


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


def test_two_runs_in_one_folder(vae, tmp_path):
    """The second one to write stops, whichever epoch it is in."""
    first, second = small_run(vae, tmp_path), small_run(vae, tmp_path)
    first.restore(True)
    second.restore(True)
    end_epoch(first, 1)
    with pytest.raises(vae.InputError, match="must be of one run, found files of another"):
        end_epoch(second, 1)


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


def test_another_run_is_not_resumed(stopped):
    for option, then, now in (("--limit", 300, 310), ("--learning-rate", 0.003, 0.002)):
        process = run(VAE, *SMALL, "--resume", option, now, cwd=stopped)
        name = option[2:].replace("-", "_")
        refused(process, f"--resume: {name} must be {then}, as before, found {now}")


def test_a_changed_script_is_named(stopped, tmp_path):
    """Whatever has changed in it: a layer, a loss, or a constant."""
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    (tmp_path / "data").symlink_to(ROOT / "data")
    text = (ROOT / VAE).read_text()
    changed = text.replace("ADAM_WEIGHT_DECAY = 0.05", "ADAM_WEIGHT_DECAY = 0.04")
    assert changed != text
    (tmp_path / VAE).write_text(changed)
    process = run(tmp_path / VAE, *SMALL, "--resume", cwd=tmp_path)
    refused(process, "--resume: script (CRC-32) must be ")
    assert "damaged" not in process.stderr


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


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_user_or_a_cluster_stops_a_run(sent, tmp_path, script=DENOISER):
    command = [sys.executable, "-u", ROOT / script, "--limit", "300", "--epochs", "500"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    pipes["preexec_fn"] = interruptible
    with subprocess.Popen(command, cwd=tmp_path, **pipes) as process:
        while not process.stdout.readline().startswith("epoch 2 of"):
            assert process.poll() is None
        process.send_signal(sent)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    said = re.fullmatch(r"stopped after epoch (\d+); continue with --resume\n", errors)
    assert said, errors
    assert checkpoints(tmp_path, script)[-1] == f"epoch-{int(said.group(1)):06}.npz"


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


def test_a_run_with_other_first_weights_is_resumed(whole, tmp_path):
    """The same command with --resume continues it, and its results name the origin."""
    words = ["--start-from", whole[VAE] / MODELS[VAE]]
    trained(VAE, *SMALL, *words, "--model-dir", "whole", cwd=tmp_path)
    words += ["--model-dir", "stopped", "--resume"]
    assert killed("write", 2, VAE, *words, cwd=tmp_path) == KILLED
    assert "resuming after epoch 2" in trained(VAE, *SMALL, *words, cwd=tmp_path).stdout
    one, other = (metrics(tmp_path / name) for name in ("whole", "stopped"))
    assert one == other and one["start_from"] == str(whole[VAE] / MODELS[VAE])


def test_weights_that_do_not_fit_or_are_damaged(whole, tmp_path):
    folder = whole[VAE] / MODELS[VAE]
    words = [*SMALL, "--latent-dim", 3, "--start-from"]
    process = run(VAE, *words, folder, cwd=tmp_path)
    refused(process, f"--start-from {folder} must have encoder.keras with the same shapes, found")
    refused(run(VAE, *words, tmp_path, cwd=tmp_path), "encoder.keras")
    (tmp_path / "damaged").mkdir()
    content = bytearray((folder / "encoder.keras").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "damaged" / "encoder.keras").write_bytes(content)
    refused(run(VAE, *SMALL, "--start-from", "damaged", cwd=tmp_path), "damaged must have encoder")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


def test_an_unfinished_run_is_not_replaced(stopped):
    before = checkpoints(stopped, VAE)
    assert before[-1] == "epoch-000004.npz"
    process = run(VAE, *SMALL, cwd=stopped)
    refused(process, "models/vae/checkpoints must be empty without --resume, found a run")
    assert checkpoints(stopped, VAE) == before


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    """At a rate of 10 the VAE's loss is lost at once: one line, and no checkpoint of it."""
    process = run(VAE, "--limit", 300, "--epochs", 3, "--learning-rate", 10, cwd=tmp_path)
    refused(process, "the loss must be finite, found epoch ", "nan")
    records = [path.name for path in (tmp_path / MODELS[VAE]).rglob("*") if path.is_file()]
    assert "metrics.json" not in records


def test_a_failed_write_leaves_the_old_file(vae, tmp_path):
    path = tmp_path / "figure.png"
    path.write_text("old")

    def write(scratch):
        scratch.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        vae.replace(path, write)
    assert [p.name for p in tmp_path.iterdir()] == ["figure.png"] and path.read_text() == "old"
