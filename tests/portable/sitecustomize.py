"""Make vitexp see Windows: Python imports this module in every process that has its folder in PYTHONPATH.

Only imports by vitexp see a Windows: other libraries know how to run there, and here they run on this system. What
Windows lacks is absent, and its locks are those of this system, seen through msvcrt.
"""

import builtins
import errno
import fcntl
import sys
import types
import warnings
from typing import Any

_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "termios", "tty"}
_LACKS = {
    "os": {
        *(
            "O_CLOEXEC",
            "O_DIRECTORY",
            "O_NOFOLLOW",
            "chown",
            "fchmod",
            "fork",
            "forkpty",
            "geteuid",
            "getuid",
            "killpg",
        ),
        *("mkfifo", "nice", "pread", "pwrite", "register_at_fork", "sched_getaffinity", "setsid", "statvfs", "uname"),
        *("wait", "waitid"),
    },
    "signal": {
        *("SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGUSR1", "SIGUSR2", "alarm", "pause"),
        *("pthread_kill", "pthread_sigmask", "setitimer", "sigwait"),
    },
    "socket": {"AF_UNIX", "recv_fds", "send_fds"},
    "multiprocessing": {"forkserver"},
    **{name: set[str]() for name in ("ctypes", "subprocess", "sys")},
}


def _locking(descriptor: int, mode: int, size: int) -> None:
    import os

    start = os.lseek(descriptor, 0, os.SEEK_CUR)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, size, start)
    except OSError as error:
        raise PermissionError(errno.EACCES, "Permission denied") from error


_MSVCRT = types.ModuleType("msvcrt")
_MSVCRT.__dict__.update(locking=_locking, LK_NBLCK=2)


def _load(name: str | None) -> Any:
    if name is None:
        raise TypeError("LoadLibrary() argument 1 must be str, not None")
    return _import("ctypes").CDLL(name)


# SIGTERM stands for Ctrl-Break, which this system lacks.
_REPLACED: dict[str, dict[str, Any]] = {
    "sys": {"platform": "win32"},
    "ctypes": {"CDLL": _load},
    "signal": {"CTRL_BREAK_EVENT": 15},
    "subprocess": {"CREATE_NEW_PROCESS_GROUP": 0},
}


class _Windows(types.ModuleType):
    """A module without what it lacks on Windows."""

    def __init__(self, module: types.ModuleType) -> None:
        super().__init__(module.__name__)
        object.__setattr__(self, "_module", module)

    def __getattribute__(self, name: str) -> Any:
        module = object.__getattribute__(self, "_module")
        key = module.__name__
        if name in _LACKS[key]:
            raise AttributeError(f"module {key!r} has no attribute {name!r} on Windows")
        replaced = _REPLACED.get(key, {})
        return replaced[name] if name in replaced else getattr(module, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(object.__getattribute__(self, "_module"), name, value)


_seen: dict[str, _Windows] = {}
_import = builtins.__import__


def _as_on_windows(name: str, globals: Any = None, *arguments: Any, **options: Any) -> Any:
    importer = str((globals or {}).get("__name__", ""))
    package = str((globals or {}).get("__package__") or "")
    if not f"{importer}.".startswith("vitexp.") and not f"{package}.".startswith("vitexp."):
        return _import(name, globals, *arguments, **options)
    if name in _MODULES:
        raise ModuleNotFoundError(f"No module named {name!r} on Windows", name=name)
    if name == "msvcrt":
        return _MSVCRT
    module = _import(name, globals, *arguments, **options)
    if name in _LACKS:
        return _seen.setdefault(name, _Windows(module))
    return module


builtins.__import__ = _as_on_windows
# Texts without an encoding would be in cp1252 there; Python warns with PYTHONWARNDEFAULTENCODING=1.
if sys.flags.warn_default_encoding:
    warnings.filterwarnings("error", category=EncodingWarning, module="vitexp")
