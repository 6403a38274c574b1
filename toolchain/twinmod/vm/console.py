# SPDX-License-Identifier: GPL-2.0-only
"""What the console of a VM says of its kernel."""

from pathlib import Path

from twinmod.guest import faults, visible


def read_console(vm_dir: Path) -> str:
    """Return what the kernel of a VM said, "" when it did not come so far."""
    path = vm_dir / "results/console.log"
    return path.read_text(errors="replace") if path.exists() else ""


def find_words(console: str) -> str:
    """Return what a kernel said that did not come far: its faults, or its last line, or ""."""
    lines = [line.text for line in map(faults.parse_line, console.splitlines()) if line.text]
    told = [fault.lines[0] for fault in faults.parse_faults(console)[:1]]
    # What follows a warning may have ended it for another reason.
    told += [line for line in lines if line.startswith("Kernel panic - not syncing: ")][:1]
    if told:
        return f"its kernel said: {'; '.join(dict.fromkeys(told))}"
    return f"the last line of its console is: {visible.make_visible(lines[-1])}" if lines else ""
