"""Faults of a disk: damage to a file, and calls that fail or kill."""

import os

from harness import BUILD

SHIM = BUILD / "tests" / "support" / "fault_shim.so"


def flip_bit(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def truncate_half(path):
    os.truncate(path, path.stat().st_size // 2)


def shim_environment(stage, call, action, n, directory, report, **more):
    """What a program is started with, so that its Nth `call` below `directory` meets `action`."""
    if not SHIM.exists():
        raise FileNotFoundError(f"{SHIM} is not built")
    environment = stage.environment(
        LD_PRELOAD=str(SHIM), FAULT_CALL=call, FAULT_AT=str(n), FAULT_ACTION=action,
        FAULT_DIRECTORY=str(directory), FAULT_REPORT=str(report), **more)
    # The shim is loaded before the sanitizer, which then refuses to start unless told.
    environment["ASAN_OPTIONS"] = environment.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
    return environment
