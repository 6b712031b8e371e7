"""Problems for commands, in a file."""

import json
from pathlib import Path


def gsm8k(path: Path) -> str:
    entries = [{"question": f"{'One and ' * 60}{i}?", "answer": f"It is {i}.\n#### {i}"} for i in range(9)]
    path.write_text("\n".join(map(json.dumps, entries)))
    return f"gsm8k:{path}"
