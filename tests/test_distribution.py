"""Several devices and several machines: the same figures, one writer, a lost worker is noticed."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow
from conftest import DENOISER, MODELS, ROOT, VAE, metrics, run

# 309 images: the last batch of an epoch is one of 53. At this rate, what another order of additions
# changes in the last bits is not yet blown up by the training.
SMALL = ["--limit", "309", "--epochs", "3", "--learning-rate", "1e-5"]


def assert_same_figures(one, other):
    """Of a VAE, within 0.01 nats."""
    one, other = one / MODELS[VAE], other / MODELS[VAE]
    figures, others = (
        {name: value for name, value in metrics(folder).items() if isinstance(value, float)}
        for folder in (one, other)
    )
    assert len(figures) >= 6 and figures == pytest.approx(others, abs=0.01)
    histories = [
        np.genfromtxt(folder / "history.csv", delimiter=",", skip_header=1)
        for folder in (one, other)
    ]
    np.testing.assert_allclose(*histories, atol=0.01)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of a run with one device."""
    folder = tmp_path_factory.mktemp("alone")
    process = run(VAE, *SMALL, "--tensorboard", "log", cwd=folder)
    assert process.returncode == 0, process.stderr
    return folder


def test_two_devices_end_where_one_does(alone, tmp_path):
    devices = Path(__file__).with_name("devices.py")
    process = run(devices, 2, ROOT / VAE, *SMALL, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert_same_figures(alone, tmp_path)
    one, other = (last_state(folder / MODELS[VAE]) for folder in (alone, tmp_path))
    different = 0
    for name, values in one.items():  # Adam's moments tell of gradients of another scale
        most = np.abs(values).max()
        np.testing.assert_allclose(values, other[name], atol=0.05 * most + 1e-9, err_msg=name)
        different += not np.array_equal(values, other[name])
    assert different  # two devices have been at work


def last_state(folder):
    """Return the numbers of the newest checkpoint of a run."""
    reader = tensorflow.train.load_checkpoint(str(folder / "checkpoints"))
    names = [name for name in reader.get_variable_to_shape_map() if name.startswith("variables/")]
    return {name: reader.get_tensor(name) for name in names}


def cluster():
    """Return TF_CONFIG of the chief and of the other of two workers on this machine."""
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        hosts = [f"127.0.0.1:{each.getsockname()[1]}" for each in (one, other)]
    tasks = [{"type": "worker", "index": index} for index in (0, 1)]
    return [json.dumps({"cluster": {"worker": hosts}, "task": task}) for task in tasks]


def start(*arguments, cwd):
    """Start two workers."""
    command = [sys.executable, "-u", ROOT / VAE, *SMALL, *arguments]
    environment = {**os.environ}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)  # which the import of a script has set here
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [
        subprocess.Popen(command, cwd=cwd, env={**environment, "TF_CONFIG": config}, **pipes)
        for config in cluster()
    ]


def test_two_workers_lose_one_and_end_where_one_process_does(alone, tmp_path):
    chief, other = start(cwd=tmp_path)
    while not (line := chief.stdout.readline()).startswith("Epoch 2"):
        assert line, chief.stderr.read()
    other.send_signal(signal.SIGKILL)
    _, errors = chief.communicate(timeout=60)
    assert chief.returncode == 2
    lost = r"error: a worker is lost \(.+\); start all of them again, with --resume\n"
    assert re.fullmatch(lost, errors)
    assert other.communicate()[0].count("\n") == 1
    assert not (tmp_path / MODELS[VAE] / "metrics.json").exists()

    chief, other = start("--resume", cwd=tmp_path)
    (said, errors), (others, other_errors) = chief.communicate(), other.communicate()
    assert (chief.returncode, other.returncode) == (0, 0), errors + other_errors
    assert errors == other_errors == ""
    assert re.search(r"^resuming after epoch [12] of 3$", said, re.MULTILINE)
    assert "wrote models/vae/metrics.json" in said and "negative elbo" in said
    assert others == "one of 2 workers; figures and files are the chief's\n"
    values = json.loads((tmp_path / MODELS[VAE] / "metrics.json").read_text())
    assert values["workers"] == 2
    assert_same_figures(alone, tmp_path)


@pytest.mark.parametrize("differ", [False, True])
def test_workers_that_are_not_about_to_do_the_same(differ, vae, monkeypatch):
    """Each of the workers gathers what all of them have; here the others are made up."""
    others = lambda marks: marks + int(differ)  # noqa: E731
    workers = SimpleNamespace(
        run=lambda function: function(),
        gather=lambda marks, axis: vae.tf.concat([marks, others(marks)], axis),
    )
    monkeypatch.setattr(vae, "WORKERS", workers)
    if not differ:
        return vae.refuse_differences({"seed": 0}, 1)
    with pytest.raises(vae.InputError, match="the workers differ in their options, GPUs, data"):
        vae.refuse_differences({"seed": 0}, 1)


HOSTS = {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        ({"cluster": HOSTS}, "KeyError: 'task'"),
        ({"task": {"type": "worker", "index": 0}}, "KeyError: 'cluster'"),
        ({"cluster": HOSTS, "task": {"type": "worker"}}, "KeyError: 'index'"),
        ({"cluster": HOSTS, "task": {"type": "chief", "index": 0}}, "KeyError: 'chief'"),
        ({"cluster": HOSTS, "task": {"type": "worker", "index": 2}}, "no worker 2"),
        ({"cluster": HOSTS, "task": {"type": "worker", "index": -1}}, "no worker -1"),
        ({"cluster": {"ps": []}, "task": {"type": "ps", "index": 0}}, "of workers, and of one"),
        ({"cluster": {"chief": ["a:1", "b:1"]}, "task": {"type": "chief", "index": 0}}, "of one"),
        ({"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}, "not a list"),
        ({"cluster": {"worker": [1, 2]}, "task": {"type": "worker", "index": 0}}, "not a list"),
        ({"cluster": 3, "task": {"type": "worker", "index": 0}}, "TypeError"),
        ({"cluster": ["worker"], "task": {"type": "worker", "index": 0}}, "AttributeError"),
    ],
)
def test_a_cluster_that_cannot_be_read(config, problem, vae, monkeypatch, capsys):
    text = config if isinstance(config, str) else json.dumps(config)
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(SystemExit) as caught:
        vae.parse_command_line(vae.commands(), [])
    errors = capsys.readouterr().err
    assert caught.value.code == 2 and errors.count("\n") == 1
    assert errors.startswith(f"error: TF_CONFIG={text}: ") and problem in errors
    assert "accepted: " in errors


def test_a_cluster_is_for_training_only(vae, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{")
    assert vae.parse_command_line(vae.commands(), ["generate", "--output", "x"]).command
    chief = {"cluster": {"chief": ["a:1"]}, "task": {"type": "chief", "index": 0}}
    for config, workers in (("", 1), (json.dumps(chief), 1)):
        monkeypatch.setenv("TF_CONFIG", config)
        assert vae.parse_command_line(vae.commands(), []).workers == workers


def test_more_devices_than_there_are(vae):
    options = vae.parse_command_line(vae.commands(), ["--devices", "9"])
    with pytest.raises(vae.InputError, match="--devices 9: accepted: up to 1 here"):
        vae.strategy_of(options)
    options.devices = 1
    assert vae.strategy_of(options) is vae.tf.distribute.get_strategy()


@pytest.mark.parametrize(
    ("capabilities", "flags", "policy"),
    [
        ([], "fpu avx2 avx512_bf16", "mixed_bfloat16"),
        ([], "fpu amx_bf16", "mixed_bfloat16"),
        ([], "fpu avx2 avx512f", None),
        ([(8, 0), (7, 0)], "", "mixed_float16"),
        ([(8, 0), (6, 1)], "avx512_bf16", None),
    ],
)
def test_what_computes_in_16_bits(capabilities, flags, policy, vae, monkeypatch):
    config = vae.tf.config
    monkeypatch.setattr(config, "get_visible_devices", lambda kind: capabilities)
    details = lambda gpu: {"compute_capability": gpu}  # noqa: E731
    monkeypatch.setattr(config.experimental, "get_device_details", details)
    cpuinfo = SimpleNamespace(exists=lambda: True, read_text=lambda: f"flags : {flags}\n")
    monkeypatch.setattr(vae, "Path", lambda path: cpuinfo)
    if policy:
        assert vae.mixed_precision() == policy
    else:
        with pytest.raises(vae.InputError, match="--mixed-precision: accepted on GPUs"):
            vae.mixed_precision()


@pytest.mark.parametrize("script", [VAE, DENOISER])
def test_16_bits_change_losses_little(script, vae, denoiser, policy="mixed_bfloat16"):
    """In a few steps; weights and losses stay of 32 bits."""
    module, make = {VAE: (vae, vae_trainer), DENOISER: (denoiser, denoiser_trainer)}[script]
    images = module.load_images("mnist", 300)
    found = {}
    for name in ("float32", policy):
        keras.config.set_dtype_policy(name)
        try:
            keras.utils.set_random_seed(0)
            model, prepare = make(module)
            model.compile(keras.optimizers.Adam(1e-4))
            batches = module.spread(module.frozen_batches(images.train, prepare, 0, "training"))
            found[name] = model.fit(batches, epochs=3, verbose=0, shuffle=False).history["loss"]
        finally:
            keras.config.set_dtype_policy("float32")
        assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
        assert model.networks[0].layers[1].compute_dtype == name.removeprefix("mixed_")
        *inputs, _ = next(iter(batches))
        losses = model.losses_of(*inputs, training=False)
        assert {loss.dtype for loss in losses} == {module.tf.float32}
    assert found[policy] != found["float32"]
    assert found[policy] == pytest.approx(found["float32"], rel=0.01)


def vae_trainer(vae):
    shape = (28, 28, 1)
    model = vae.build_vae(vae.build_encoder(shape, 2), vae.build_decoder(shape, 2))
    return model, vae.with_epsilon(2)


def denoiser_trainer(denoiser):
    encoder = denoiser.build_encoder((28, 28, 1))
    decoder = denoiser.build_decoder((28, 28, 1), encoder.output.shape[1:])
    logits = keras.Model(encoder.input, decoder(encoder.output))
    return denoiser.build_denoiser(logits), denoiser.with_noise(0.5)


def test_tensorboard(alone):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logs = {folder.name: EventAccumulator(str(folder)) for folder in (alone / "log").iterdir()}
    for log in logs.values():
        log.Reload()
    parts = {f"epoch_{name}" for name in ("loss", "reconstruction", "kl")}
    assert set(logs["train"].Tags()["tensors"]) >= parts | {"epoch_learning_rate"}
    assert set(logs["validation"].Tags()["tensors"]) >= parts
    assert set(logs["pictures"].Tags()["tensors"]) == {
        path.stem for path in (alone / "images").iterdir()
    }
    events = logs["train"].Tensors("epoch_loss")
    losses = [float(tensorflow.make_ndarray(event.tensor_proto)) for event in events]
    rows = np.genfromtxt(alone / MODELS[VAE] / "history.csv", delimiter=",", names=True)
    assert losses == pytest.approx(list(rows["loss"]))


def test_tensorboard_needs_its_package(vae, monkeypatch, capsys):
    monkeypatch.setattr(vae.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as caught:
        vae.parse_command_line(vae.commands(), ["--tensorboard", "log"])
    assert caught.value.code == 2 and "pip install tensorboard" in capsys.readouterr().err


OVERFLOW = """
import numpy as np, tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from conftest import VAE, load
vae = load(VAE)
vae.keras.config.set_dtype_policy("mixed_float16")
images = vae.load_images("mnist", 300).train[:64]
batches = vae.frozen_batches(images, vae.with_epsilon(2), 0, "training")
with vae.strategy_of(vae.parse_command_line(vae.commands(), [])).scope():
    model = vae.build_vae(vae.build_encoder((28, 28, 1), 2), vae.build_decoder((28, 28, 1), 2))
    model.compile(vae.keras.optimizers.Adam(1e-3))
    model.optimizer.build(model.trainable_variables)
    weights = lambda: [variable.numpy() for variable in model.trainable_variables]
    before = weights()
    spoilt = batches.map(lambda x, e: (tf.concat([x[:-1], x[-1:] * np.inf], 0), e))
    model.fit(vae.spread(spoilt), steps_per_epoch=1, verbose=0, shuffle=False)
    assert all(map(np.array_equal, before, weights()))
    assert model.optimizer.dynamic_scale.numpy() == 2**14
    model.fit(vae.spread(batches), steps_per_epoch=1, verbose=0, shuffle=False)
    assert not all(map(np.array_equal, before, weights()))
    assert all(np.isfinite(part).all() for part in weights())
"""


def test_an_overflow_on_one_of_two_devices_skips_the_step_on_both():
    command = [sys.executable, "-c", OVERFLOW]
    process = subprocess.run(command, cwd=ROOT / "tests", capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
