"""Runs that are killed, stopped, spoilt or started twice: nothing is lost, nothing is mixed up."""

import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import DENOISER, MODELS, ROOT, VAE, run, run_after, same_end

BOTH = pytest.mark.parametrize("script", [DENOISER, VAE])
SMALL = ["--limit", "300", "--epochs", "5"]  # 5 steps an epoch
KILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an uninterrupted run of each script."""
    folders = {}
    for script in (DENOISER, VAE):
        folders[script] = tmp_path_factory.mktemp("whole")
        process = run(script, *SMALL, cwd=folders[script])
        assert process.returncode == 0, process.stderr
    return folders


def killed(point, count, script, *arguments, cwd):
    """Run a script that kills itself at a point: see killer.py."""
    command = [sys.executable, Path(__file__).with_name("killer.py"), point, str(count)]
    command += [ROOT / script, *SMALL, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True).returncode


def test_killed_and_resumed_is_the_same_run(whole, tmp_path, script=DENOISER):
    draw = np.random.default_rng(len(script))
    assert killed("step", draw.integers(6, 10), script, cwd=tmp_path) == KILLED
    step = draw.integers(1, 5)  # in the same epoch, for the second time
    assert killed("step", step, script, "--resume", cwd=tmp_path) == KILLED
    assert killed("data", 1, script, "--resume", cwd=tmp_path) == KILLED  # of a checkpoint unknown
    assert killed("state", 2, script, "--resume", cwd=tmp_path) == KILLED  # of one too many
    process = run(script, *SMALL, "--resume", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "resuming after epoch 3 of 5" in process.stdout
    same_end(script, whole[script], tmp_path)


def test_killed_from_outside_at_any_moment(whole, tmp_path):
    """From the first second of training on, in writing too, until a run comes to its end."""
    draw = np.random.default_rng(7)
    kills, arguments = 0, []
    while True:
        command = [sys.executable, "-u", ROOT / VAE, *SMALL, *arguments]
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
            while (line := process.stdout.readline()) and not line.startswith("Epoch"):
                pass
            try:
                process.wait(draw.uniform(0.5, 3.5))
                assert process.returncode == 0
                break
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
        if (tmp_path / MODELS[VAE] / "checkpoints" / "checkpoint").exists():
            arguments = ["--resume"]
    assert kills > 0
    same_end(VAE, whole[VAE], tmp_path)


def test_a_finished_run_resumes_to_the_same_files(whole, tmp_path):
    shutil.copytree(whole[VAE], tmp_path, dirs_exist_ok=True)
    (tmp_path / MODELS[VAE] / "decoder.keras").unlink()
    process = run(VAE, *SMALL, "--resume", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    same_end(VAE, whole[VAE], tmp_path)


@pytest.mark.parametrize("spoil", ["flip the index", "truncate the data"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(spoil, whole, tmp_path):
    shutil.copytree(whole[VAE], tmp_path, dirs_exist_ok=True)
    (path,) = (tmp_path / MODELS[VAE] / "checkpoints").glob(f"ckpt-5.{spoil.split()[-1]}*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content if "flip" in spoil else content[: len(content) // 2])
    process = run(VAE, *SMALL, "--resume", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert re.search(r"ckpt-5 is damaged: .*; trying the one before\n$", process.stderr)
    assert "resuming after epoch 4 of 5" in process.stdout
    same_end(VAE, whole[VAE], tmp_path)


def options_of(vae, folder, *arguments):
    words = ["--limit", "300", "--epochs", "2", *map(str, arguments)]
    options = vae.parse_command_line(vae.commands(), words)
    options.model_dir = options.images_dir = folder
    return options


def build(vae):
    return vae.build_vae(vae.build_encoder((28, 28, 1), 2), vae.build_decoder((28, 28, 1), 2))


def test_a_flipped_bit_anywhere_is_never_loaded(vae, tmp_path):
    images = vae.load_images("mnist", 300)
    options = options_of(vae, tmp_path)
    model = build(vae)
    vae.train(model, images, vae.with_epsilon(2), options)
    keeper = vae.Keeper(model, images.train, options)
    variables = list(keeper.checkpoint.variables)

    def restored():
        epoch = keeper.restore()
        return epoch, [variable.numpy() for variable in variables]

    good = {2: restored()[1]}
    (newest,) = tmp_path.glob("checkpoints/ckpt-2.data*")
    index = newest.parent / "ckpt-2.index"
    whole_file = newest.read_bytes()
    newest.write_bytes(b"")
    good[1] = restored()[1]
    newest.write_bytes(whole_file)
    draw = np.random.default_rng(0)
    epochs = []
    for path in [newest] * 40 + [index] * 40:
        before = path.read_bytes()
        content = bytearray(before)
        content[draw.integers(len(content))] ^= 1 << draw.integers(8)
        path.write_bytes(content)
        epoch, state = restored()
        for one, other in zip(good[epoch], state, strict=True):
            np.testing.assert_array_equal(one, other)
        epochs.append(epoch)
        path.write_bytes(before)
    assert epochs[:40] == [1] * 40  # every byte of the tensors is under a checksum


CHANGES = {
    "--seed": ("0", "1"),
    "--batch-size": ("64", "32"),
    "--limit": ("300", "310"),
    "--latent-dim": ("2", "3"),
    "--learning-rate": ("0.004", "0.003"),
    "--beta": ("1.0", "2.0"),
    "--image-size": ("None", "20"),
    "--epochs": ("5", "6"),
}


@pytest.mark.parametrize("option", CHANGES)
def test_another_run_is_not_resumed(option, vae, whole):
    then, now = CHANGES[option]
    words = [*SMALL, "--resume", option, now]
    options = vae.parse_command_line(vae.commands(), words)
    options.model_dir = whole[VAE] / options.model_dir
    images = vae.load_images("mnist", options.limit, options.image_size)
    shape = images.train.shape[1:]
    model = vae.build_vae(
        vae.build_encoder(shape, options.latent_dim), vae.build_decoder(shape, options.latent_dim)
    )
    with pytest.raises(vae.InputError) as caught:
        vae.train(model, images, vae.with_epsilon(options.latent_dim), options)
    text = str(caught.value)
    assert f"{option} was {then} and is {now}" in text
    assert ("learning rate" in text) == (option == "--epochs")


def test_a_script_that_is_edited_during_its_run(tmp_path, script=VAE):
    copy = shutil.copy(ROOT / script, tmp_path)
    command = [sys.executable, "-u", copy, "--limit", "300", "--epochs", "2"]
    command += ["--data", ROOT / "data" / "mnist.npz"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("Epoch 1")
        Path(copy).write_text("edited = True\n" * 7 + Path(copy).read_text())
        assert "metrics.json" in process.stdout.read()
    assert process.returncode == 0


def test_a_damaged_list_of_checkpoints_is_made_anew(whole, tmp_path):
    shutil.copytree(whole[DENOISER], tmp_path, dirs_exist_ok=True)
    folder = tmp_path / MODELS[DENOISER]
    (folder / "checkpoints" / "checkpoint").write_text("garbage")
    (folder / "metrics.json").unlink()  # as after a run that was killed in its evaluation
    process = run(DENOISER, *SMALL, cwd=tmp_path)
    assert process.returncode == 2 and "stopped after epoch 5; accepted: --resume" in process.stderr
    (folder / "checkpoints" / "checkpoint").write_text("")
    process = run(DENOISER, *SMALL, "--resume", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "resuming after epoch 5 of 5" in process.stdout
    same_end(DENOISER, whole[DENOISER], tmp_path)


def test_another_noise_is_another_run(whole):
    process = run(DENOISER, *SMALL, "--resume", "--noise", 0.4, cwd=whole[DENOISER])
    assert process.returncode == 2 and "--noise was 0.5 and is 0.4" in process.stderr


@BOTH
def test_nothing_to_resume(script, tmp_path):
    process = run(script, *SMALL, "--resume", cwd=tmp_path)
    assert process.returncode == 2 and "no checkpoint in models" in process.stderr
    assert process.stderr.count("\n") == 1 and not list(tmp_path.iterdir())


def started(script, *arguments, cwd, until="Epoch 2"):
    """Start a run of many epochs, and return it once a line of its output begins as given."""
    command = [sys.executable, "-u", ROOT / script, "--limit", "300", "--epochs", "500", *arguments]
    process = subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not process.stdout.readline().startswith(until):
        assert process.poll() is None, process.stderr.read()
    return process


@pytest.mark.parametrize(
    ("script", "number", "status"), [(DENOISER, signal.SIGINT, 130), (VAE, signal.SIGTERM, 143)]
)
def test_stopped_by_a_signal(script, number, status, tmp_path):
    folder = tmp_path / "a folder with spaces, é"
    folder.mkdir()
    process = started(script, "--model-dir", "models é", cwd=folder)
    if script == DENOISER:
        second = run(script, "--limit", 300, "--model-dir", "models é", cwd=folder)
        assert second.returncode == 2 and "another run is at work in models é" in second.stderr
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == status
    assert errors.startswith("\nstopped; to go on") and "Traceback" not in errors
    command = errors.partition("whole epoch: ")[2].strip()
    assert command.endswith("--epochs 500 --model-dir 'models é' --resume")
    if script == DENOISER:
        fresh = run(script, "--limit", 300, "--model-dir", "models é", cwd=folder)
        assert fresh.returncode == 2 and "was stopped after epoch" in fresh.stderr
    if script == VAE:
        go_on = f"PYTHONUNBUFFERED=1 exec {command}"
        with subprocess.Popen(go_on, shell=True, cwd=folder, stdout=subprocess.PIPE) as again:
            assert again.stdout.readline().startswith(b"resuming after epoch")
            again.kill()


def test_a_second_signal_ends_the_run_at_once(tmp_path):
    code = (
        "import runpy, time, sys; sys.argv = ['x', '--help']\n"
        f"module = runpy.run_path({str(ROOT / VAE)!r})\n"
        "def wait():\n"
        "    for _ in range(600): time.sleep(0.1)\n"
        "class Slow:\n"
        "    def glob(self, pattern): print('first', flush=True); wait()\n"
        "def command(options): print('ready', flush=True); wait()\n"
        "from types import SimpleNamespace\n"
        "options = SimpleNamespace(model_dir=Slow(), command='train')\n"
        "module['exit_status'](command, options)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for line in ("ready\n", "first\n"):
        assert process.stdout.readline() == line
        process.send_signal(signal.SIGINT)
    since = time.monotonic()
    process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT and time.monotonic() - since < 5


def test_a_lost_loss_stops_the_run_and_keeps_the_checkpoint(vae, tmp_path, monkeypatch):
    class Explosive(keras.optimizers.schedules.LearningRateSchedule):
        def __init__(self, rate, **settings):
            self.rate = rate

        def __call__(self, step):
            return keras.ops.where(step < 8, self.rate, 1e30)

    monkeypatch.setattr(vae.keras.optimizers.schedules, "CosineDecay", Explosive)
    images = vae.load_images("mnist", 300)
    with pytest.raises(vae.InputError, match=r"loss is (nan|inf) in epoch 2, step 5; try a lower"):
        vae.train(build(vae), images, vae.with_epsilon(2), options_of(vae, tmp_path))
    assert [path.name for path in tmp_path.glob("checkpoints/*.index")] == ["ckpt-1.index"]


def test_a_full_disk_leaves_no_broken_file(tmp_path, script=VAE):
    """A limit on the size of files stands in for the disk: no checkpoint fits under it."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    words = ["--limit", "300", "--epochs", "1"]
    process = run_after(limit, ROOT / script, *words, cwd=tmp_path)
    assert process.returncode == 2, process.stderr
    assert process.stderr.splitlines()[-1].startswith("error: no checkpoint could be written")
    assert "Traceback" not in process.stderr
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert not [
        name for name in files if name.endswith((".keras", ".json", ".csv", ".png", "index"))
    ]


# Of a finished run: all that is left to do is to write its files.
RESUMED = [*SMALL, "--resume", "--importance-samples", "1"]
WRITTEN = [
    *[(VAE, RESUMED, kind) for kind in (".keras", ".csv", ".json", ".png")],
    (DENOISER, ["denoise", "images", "--output", "new"], ".png"),
    (VAE, ["generate", "--output", "new"], ".png"),
    (VAE, ["encode", "images", "--output", "codes.npz"], ".npz"),
]


@pytest.mark.parametrize(("script", "words", "kind"), WRITTEN)
def test_a_disk_that_fills_up_leaves_whole_files(
    script, words, kind, denoiser, vae, whole, tmp_path, monkeypatch, capsys
):
    """The disk is full when the first file of a kind is written: none is left, and none is lost."""
    module = {DENOISER: denoiser, VAE: vae}[script]
    shutil.copytree(whole[script], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    options = module.parse_command_line(module.commands(), words)
    command = getattr(module, f"{options.command}_command")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.suffix == kind}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    save = module.save

    def save_on_a_full_disk(path, write):
        if path.suffix == kind:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        save(path, write)

    monkeypatch.setattr(module, "save", save_on_a_full_disk)
    try:
        status = module.exit_status(command, options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert status == 2
    assert re.match(r"error: .*(File too large|27)", capsys.readouterr().err)
    after = {path: path.read_bytes() for path in Path().rglob("*") if path.suffix == kind}
    assert after == before


def test_a_folder_whose_name_is_a_pattern(vae, tmp_path):
    """TensorFlow would not find the checkpoints in it again."""
    options = options_of(vae, tmp_path / "m[1]")
    with pytest.raises(vae.InputError, match=r"takes .* for patterns"), vae.run_folders(options):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_found_before_training(vae, tmp_path, monkeypatch):
    def refuse(**settings):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(vae.tempfile, "TemporaryFile", refuse)
    options = options_of(vae, tmp_path / "new")
    with (
        pytest.raises(vae.InputError, match=r"cannot write to the folder .*: Permission denied"),
        vae.run_folders(options),
    ):
        pass
