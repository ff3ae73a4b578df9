"""What a command prints and its exit status, whatever goes wrong inside it."""

import os
import subprocess
import sys

import pytest
import tensorflow as tf
from absl import flags

from tfvid import cli
from tfvid.errors import UserError

flags.DEFINE_integer("cli_test_number", 1, "a number")


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
        ("word", "error: expected flags only (--name=value). Received: 'word'"),
    ],
)
def test_wrong_flags_have_status_2(monkeypatch, capsys, argument, error):
    assert run(monkeypatch, lambda: pytest.fail("must not run"), argument) == 2
    err = capsys.readouterr().err
    assert err.startswith(error) and err.count("\n") == 1


def test_a_defect_of_ours_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["command"])
    flags.FLAGS.unparse_flags()
    with pytest.raises(ZeroDivisionError):
        cli.run(lambda: 1 / 0)


def test_exit_status_of_a_command_is_kept(monkeypatch):
    assert run(monkeypatch, lambda: sys.exit(143)) == 143


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
