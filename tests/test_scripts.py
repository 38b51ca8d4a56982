"""The scripts refuse what they would not read, in one line, before any work."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("bench.py --gpu --model tiny", "--model is not read"),
        ("bench.py --gpu --rows 4", "--rows is not read"),
        ("bench.py --path DIR", "--path is not read: without --model"),
        ("bench.py --streamed --tokens 16", "--tokens is not read"),
        ("bench.py --streamed --model smollm2-135m --dtype float32", "--dtype is not read"),
        ("bench.py --streamed --model tiny", "tiny lies in the package"),
        ("bench.py --model tiny --rows 0", "--rows: invalid count value: '0'"),
        ("build_critic.py --candidates FILE --data-dir DIR --questions aime24", "are for --solver"),
        ("frontier.py --completion solution", "--completion names a column of --rows, which is not given"),
        ("frontier.py --seeds 0 0", "--seeds: one of them stands there twice"),
        ("frontier.py --rates 1e-3 0.001", "--rates: one of them stands there twice"),
        ("frontier.py --options train.learning_rate=1e-3", "train.learning_rate is set by this script"),
        ("frontier.py --batch 0", "--batch: invalid count value: '0'"),
        ("prefetch.py", "give --data-dir, or --models-dir with --model"),
        ("prefetch.py --data-dir DIR --only s1q", "Did you mean 's1k'?"),
        ("prefetch.py --data-dir DIR --model smollm2-135m", "give --models-dir and --model together"),
        ("prefetch.py --models-dir DIR --model smollm2-135m --only s1k", "--only names data sets"),
        ("prefetch.py --models-dir DIR --model tiny", "nothing on the hub is 'tiny'"),
        ("reproduce.py 1 --model-path DIR", "--model-path is not read with --scale paper"),
        ("reproduce.py claims --run", "--run has nothing to run"),
        ("reproduce.py costs --from .", "--from is not read"),
        ("reproduce.py 1 --run --from .", "--run makes runs of its own"),
        ("reproduce.py memory --from .", "'memory' is predicted"),
        ("reproduce.py 1 --from nowhere", "nowhere: there is no such folder"),
        ("rewards.py --seeds 1 1", "--seeds: one of them stands there twice"),
        ("rewards.py --methods lora", "invalid choice: 'lora'"),
        ("search.py --options seed=7", "seed is set by this script"),
        ("search.py --options method.rank=7", "method.rank is set by this script"),
        ("search.py --options trunk", "'trunk' is no option"),
        ("search.py --seeds 1 1", "--seeds: one of them stands there twice"),
        ("search.py --trials 0", "--trials: invalid count value: '0'"),
        ("search.py --prompt problem", "--prompt names a column of --rows, which is not given"),
        ("search.py --timed 2", "--timed: more than 2, whose run it is compared with"),
        ("search.py --seeds 0", "0 is the seed that settings are chosen on"),
        ("search.py --families lora", "no lora; there are qlora"),
    ],
)
def test_what_nothing_reads_is_refused(command, complaint, tmp_path):
    script, *words = command.split()
    asked = [sys.executable, str(SCRIPTS / script), *words]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
