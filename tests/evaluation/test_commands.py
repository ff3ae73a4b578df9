"""The commands as users call them: exit status, one line, nothing lost."""

import tempfile

import pytest

from tests import commands


def command(script, *flags):
    return commands.run(script, *flags, env={"PATH": "", "HOME": tempfile.gettempdir()})


@pytest.mark.parametrize(
    "script, flags, message",
    [
        ("evaluate", [], "--checkpoint: expected a run folder"),
        ("evaluate", ["--checkpoint=nothing_here"], "nothing_here: expected a run folder"),
        ("evaluate", ["--checkpoint=a", "--checkpoint=b"], "--output_dir: expected a folder for the comparison"),
        ("evaluate", ["--checkpoint=a", "--shard=2"], "--shard: expected i/n, for example 0/4. Received: '2'"),
        ("generate", [], "--checkpoint: expected a run folder"),
        ("generate", ["--checkpoint=a", "--web", "--graph=b"], "expected one of --controls, --graph and --web."),
        ("generate", ["--checkpoint=a", "--clip=3"], "--clip: expected with --graph only. Received: --clip=3"),
        ("generate", ["--checkpoint=a", "--image=b.png"], "--image: expected with --graph or --web. Received: b"),
        ("examples/caddy/movements.py", ["--checkpoint=nothing_here"], "nothing_here: expected a run folder"),
        ("examples/cage/displacement.py", ["--checkpoint=nothing_here"], "nothing_here: expected a run folder"),
        ("examples/cage/solvers.py", ["--checkpoint=nothing_here"], "nothing_here: expected a run folder"),
        ("download_weights", ["--network=lpips"], "--network: expected one of lpips_alex"),
        ("download_weights", ["--network=vgg19", "--source=nothing.pth"], "nothing.pth: expected"),
    ],
)
def test_mistakes_are_one_line(script, flags, message):
    result = command(script, *flags)
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert result.returncode == 1 and len(errors) == 1, result.stderr[-2000:]
    assert message in errors[0]
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("script", ["evaluate", "generate"])
def test_unknown_flags_exit_with_two(script):
    result = command(script, "--checkpoints=x")
    assert result.returncode == 2 and "Unknown command line flag 'checkpoints'" in result.stderr
