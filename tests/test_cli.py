"""What a command prints and its exit status, whatever goes wrong inside it."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest
import tensorflow as tf
from absl import flags

from tfvid import cli
from tfvid.errors import UserError

flags.DEFINE_integer("cli_test_number", 1, "a number")
flags.DEFINE_float("cli_test_rate", 1.0, "a number")
flags.DEFINE_string("cli_test_folder", None, "a folder")
flags.DEFINE_string("cli_test_text", "", "a text")
flags.DEFINE_multi_string("cli_test_folders", [], "folders")
flags.DEFINE_list("cli_test_parts", ["all"], "parts")


def raising(error):
    def main():
        raise error

    return main


def run(monkeypatch, main, *arguments):
    """Exit status of the command."""
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    flags.FLAGS.unparse_flags()
    with pytest.raises(SystemExit) as e:
        cli.run(main)
    return e.value.code


def full_disk_of_an_operation():
    message = "{{function_node __wrapped__SaveV2_device_/CPU:0}} /x/part; No space left on device [Op:SaveV2]"
    raise tf.errors.ResourceExhaustedError(None, None, message)


def full_disk():
    with tf.io.gfile.GFile("/dev/full", "w") as f:
        f.write("x" * 100000)


@pytest.mark.parametrize(
    ("main", "status", "error"),
    [
        (raising(UserError("expected this,\n received that")), 1, "error: expected this, received that"),
        (raising(KeyboardInterrupt()), 130, "error: interrupted"),
        (lambda: open("/nonexistent/file"), 1, "error: /nonexistent/file: No such file or directory"),
        (lambda: tf.io.gfile.listdir("/nonexistent/folder"), 1, "error: "),
        (lambda: open("/dev/full", "w").write("x" * 100000), 1, "error: No space left on device"),
        (full_disk, 1, "error: /dev/full"),
        (full_disk_of_an_operation, 1, "error: /x/part; No space left on device\n"),
    ],
)
def test_mistakes_and_failures_are_one_line(monkeypatch, capsys, main, status, error):
    assert run(monkeypatch, main) == status
    out, err = capsys.readouterr()
    assert err.startswith(error)
    assert err.count("\n") == 1 and out == ""


@pytest.mark.parametrize(
    ("argument", "error"),
    [
        ("--cli_test_number=x", "error: flag --cli_test_number=x: invalid literal"),
        ("--cli_test_nmber=2", "error: Unknown command line flag 'cli_test_nmber'. Did you mean: cli_test_number"),
        ("--cli_test_number=" + "9" * 20, "error: --cli_test_number: expected an integer of 64 bits. Received: 9999"),
        ("--cli_test_rate=nan", "error: --cli_test_rate: expected a finite number. Received: nan"),
        ("--cli_test_rate=-inf", "error: --cli_test_rate: expected a finite number. Received: -inf"),
        ("--cli_test_folder=", "error: --cli_test_folder: expected a value, received an empty one; see --help"),
        ("--cli_test_folders=", "error: --cli_test_folders: expected a value, received an empty one; see --help"),
        ("--cli_test_parts=", "error: --cli_test_parts: expected a value, received an empty one; see --help"),
        ("word", "error: expected flags only (--name=value). Received: 'word'"),
    ],
)
def test_wrong_flags_have_status_2(monkeypatch, capsys, argument, error):
    assert run(monkeypatch, lambda: pytest.fail("must not run"), argument) == 2
    err = capsys.readouterr().err
    assert err.startswith(error) and err.count("\n") == 1


def test_values_that_may_be_empty_and_the_home_folder(monkeypatch):
    def main():
        values = [flags.FLAGS[f"cli_test_{name}"].value for name in ("folder", "folders", "text")]
        assert values == ["/home/ü/runs", ["/home/ü", "a~", "~b"], "~x=1"]
        flags.FLAGS.cli_test_folder = ""
        sys.exit(7)

    monkeypatch.setenv("HOME", "/home/ü")
    folders = [f"--cli_test_folders={name}" for name in ("~", "a~", "~b")]
    assert run(monkeypatch, main, "--cli_test_folder=~/runs", *folders, "--cli_test_text=~x=1") == 7
    monkeypatch.setattr(sys, "argv", ["command", "--cli_test_folder=", "--cli_test_text="])
    flags.FLAGS.unparse_flags()
    flags.FLAGS.cli_test_folders = []
    with pytest.raises(SystemExit) as e:
        cli.run(lambda: sys.exit(7), may_be_empty=["cli_test_folder"])
    assert e.value.code == 7


def test_a_name_that_the_terminal_cannot_show_is_no_error(tmp_path):
    code = "from tfvid import cli; cli.run(lambda: print('a\\udcff · b'))"
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "TF_CPP_MIN_LOG_LEVEL": "1", "PYTHONPATH": os.getcwd()}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert (result.returncode, result.stdout) == (0, "a\\udcff \\xb7 b\n")


def test_a_defect_of_ours_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["command"])
    flags.FLAGS.unparse_flags()
    with pytest.raises(ZeroDivisionError):
        cli.run(lambda: 1 / 0)


def test_exit_status_of_a_command_is_kept(monkeypatch):
    assert run(monkeypatch, lambda: sys.exit(143)) == 143
    assert run(monkeypatch, lambda: sys.exit(1)) == 1


@pytest.mark.parametrize("argument", ["--help", "--helpshort", "--helpfull"])
def test_help_is_no_failure(monkeypatch, capsys, argument):
    assert run(monkeypatch, lambda: pytest.fail("must not run"), argument) == 0
    out, err = capsys.readouterr()
    assert "cli_test_parts" in out or argument != "--helpfull"
    assert err == ""


def test_a_command_starts_without_the_noise_of_tensorflow(tmp_path):
    path = tmp_path / "command.py"
    path.write_text(
        "from tfvid import cli\n"
        "def main():\n    import tensorflow as tf\n    print(int(tf.add(1, 2)))\n"
        "if __name__ == '__main__':\n    cli.run(main)\n"
    )
    env = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"} | {"PYTHONPATH": os.getcwd()}
    result = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, env=env)
    assert (result.returncode, result.stdout, result.stderr) == (0, "3\n", "")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, "--xla_cpu_use_fusion_emitters=false"),
        ("--xla_cpu_enable_fast_math=false", "--xla_cpu_enable_fast_math=false --xla_cpu_use_fusion_emitters=false"),
        ("--xla_cpu_use_fusion_emitters=true", "--xla_cpu_use_fusion_emitters=true"),
    ],
)
def test_xla_of_a_command_compiles_in_less_memory(given, expected):
    code = (
        "import os, tensorflow as tf; from tfvid import cli\n"
        "double = tf.function(lambda x: 2 * x, jit_compile=True)\n"
        "cli.run(lambda: print(os.environ['XLA_FLAGS'], double(tf.ones([])).numpy(), sep=': '))"
    )
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | ({"XLA_FLAGS": given} if given else {})
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert (result.returncode, result.stdout) == (0, f"{expected}: 2.0\n"), result.stderr


def test_commands_import_tensorflow_without_the_extras_of_keras():
    """Which would take 80 MB and half of the time; each command imports it here, not at its own top."""
    code = (
        "import sys; from tfvid import cli; cli.import_tensorflow_quietly();"
        " print([m for m in ('tensorflow', 'keras', 'matplotlib', 'sklearn') if m in sys.modules]); import matplotlib"
    )
    env = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert (done.stdout.strip(), done.stderr) == ("['tensorflow', 'keras']", "")
    scripts = sorted((pathlib.Path(__file__).parents[1] / "scripts").glob("*.py"))
    for script in scripts:
        for node in ast.parse(script.read_text()).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", "")]
            assert not {"tensorflow", "keras"} & {name.split(".")[0] for name in names}, script
    assert scripts
