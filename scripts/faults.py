"""The fault suite, tests/faults: what `make faults` runs. Writes outputs/faults/faults.json."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

if __name__ == "__main__":
    # For this process and for those that it starts.
    sys.path.insert(0, str(ROOT))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    from tests.faults.suite import main

    sys.exit(main())
