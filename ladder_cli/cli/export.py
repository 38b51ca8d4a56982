"""`ladder-export`: what was trained as a folder for others."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ladder_cli.cli import main as cli
from ladder_cli.config.compose import given_options
from ladder_cli.config.using import ExportConfig
from ladder_cli.errors import UserError
from ladder_cli.run.directory import find_runs
from ladder_cli.run.files import refuse_full_folder
from ladder_cli.streams import quiet_libraries

if TYPE_CHECKING:
    from ladder_cli.serve.export import Exported

HELP = """ladder-export: write what a run has trained in a form that others read.

  ladder-export run=DIR format=FORMAT output=DIR [key=value]

  ladder-export run=outputs/qlora-tiny-arithmetic format=merged output=merged    an ordinary model for every engine
  ladder-export run=outputs/qlora-tiny-arithmetic format=peft output=adapter     an adapter that peft loads itself
  ladder-export run=outputs/ladder-tiny-arithmetic format=vllm output=served     ladder and backbone, for `vllm serve`
  ladder-export run=outputs/qlora-tiny-arithmetic format=gguf output=gguf converter=llama.cpp/convert_hf_to_gguf.py
  ladder-export run=outputs/ladder-tiny-arithmetic format=vllm output=served push=OWNER/NAME    and to the hub

A ladder is a second network beside its backbone: it cannot be merged, and is served whole (format=vllm). A branch takes
the place of the backbone's last layers, so that it can (format=merged).
What is written is read back and compared with the trained model; nothing is written over.
`ladder-export --cfg job` prints every option with its value; docs/options.md says what each is. See docs/serving.md.

"""


def output_path(config: ExportConfig, overrides: list[str]) -> Path:
    """The folder that is written."""
    return Path(config.output or "")


def export(config: ExportConfig, overrides: list[str]) -> "Exported":
    """Export one run, and say what was written and how far it is from what was trained.

    Raises:
        UserError: for whatever is wrong with run, format or folder; before any weight is read.
    """
    config.refuse_unread(given_options(overrides))
    runs = find_runs(str(config.run))
    if len(runs) > 1:
        raise UserError(f"run={config.run} names {len(runs)} runs: an export is of one.")
    refuse_full_folder(Path(str(config.output)))
    quiet_libraries(downloads=False)
    from ladder_cli.console import make_console
    from ladder_cli.serve.push import Push, files_of, refuse_secrets

    push = Push(config.push, config.push_private) if config.push is not None else None
    if push is not None:
        push.refuse_mistakes(dry=config.push_dry_run)
    from ladder_cli.serve.export import export_run

    done = export_run(runs[0], config, overrides)
    console = make_console()
    console.print(f"{done.output}: {done.kind}", soft_wrap=True)
    console.print(f"read back and compared with the trained model: {done.difference}", soft_wrap=True)
    if done.warning is not None:
        print(f"warning: {done.warning}", file=sys.stderr)
    if push is None:
        return done
    refuse_secrets(done.output)
    if config.push_dry_run:
        print((done.output / "README.md").read_text(encoding="utf-8"))
        print(f"would go to {push.repository}, and was not sent:")
        for name, size in files_of(done.output):
            print(f"{size:>15,} bytes  {name}")
    else:
        console.print(f"pushed: {push.send(done.output)}", soft_wrap=True)
    return done


def main() -> None:
    """The console script."""
    sys.exit(cli.run("export", ExportConfig, export, output_path, HELP, one_each=False))


if __name__ == "__main__":
    main()
