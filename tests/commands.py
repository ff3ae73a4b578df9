"""The scripts as processes that start with TensorFlow imported.

An import of TensorFlow takes seconds. `run` has it done once, in a process of its own that
computes nothing; every command is a fork of that process, with its own working folder,
environment, standard streams and exit status. Variables that TensorFlow reads when it is
imported (TF_CPP_MIN_LOG_LEVEL, KERAS_BACKEND) have no effect on a command.
"""

import atexit
import contextlib
import json
import os
import pathlib
import runpy
import select
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]


class _Server:
    """The process that is forked."""

    def __init__(self):
        self.process = None

    def run(self, request, timeout):
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.commands"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, text=True, start_new_session=True,
            )  # fmt: skip
            atexit.register(self.stop)
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], timeout)[0]:
            self.stop()
            raise subprocess.TimeoutExpired(request["arguments"], timeout)
        return int(self.process.stdout.readline())

    def stop(self):
        """Ends the process and the command it waits for."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, 9)
        self.process.wait()


_server = _Server()


def run(script, *flags, env=None, cwd=ROOT, timeout=600):
    """Runs scripts/<script>.py, or the file `script` of the project.

    Args:
      flags: its arguments.
      env: the whole environment; None: this process's.
      cwd: working folder.
      timeout: in seconds.

    Returns:
      `subprocess.CompletedProcess` with stdout and stderr as text.
    """
    file = script if script.endswith(".py") else f"scripts/{script}.py"
    arguments = [str(ROOT / file), *map(str, flags)]
    with tempfile.TemporaryDirectory() as folder:
        streams = [os.path.join(folder, name) for name in ("out", "err")]
        request = {
            "arguments": arguments, "streams": streams, "cwd": str(cwd), "env": dict(os.environ if env is None else env)
        }  # fmt: skip
        status = _server.run(request, timeout)
        out, err = (pathlib.Path(path).read_text() for path in streams)
    return subprocess.CompletedProcess(arguments, status, out, err)


def _become(request):
    """In the fork: what a fresh process would be when its script starts."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in enumerate(request["streams"], 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.argv = request["arguments"]
    sys.path.insert(0, os.path.dirname(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")


def _serve():
    """One command for each line of the standard input; answers with its exit status."""
    import keras  # noqa: F401
    import tensorflow  # noqa: F401

    for line in sys.stdin:
        child = os.fork()
        if not child:
            return json.loads(line)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return None


if __name__ == "__main__":
    _request = _serve()
    if _request:
        _become(_request)  # outside of the loop, so that the end of the script is the end of the process
