"""Becomes the command it is given, tied to the process that started it: the command is killed when that one dies.

It also gives up root's right to ignore the permissions of files, so that the command meets what a user meets.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG, PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 1, 24, 1


def main(parent: int, command: list[str]) -> None:
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == parent:
        os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
