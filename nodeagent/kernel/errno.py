"""OSError -> AgentError, in one place.

Invariant: Gone means that the thing vanished, which is normal; everything else is a finding about this host.
"""

from __future__ import annotations

import errno

from nodeagent.model.errors import AgentError, Gone, Refused, Unsupported

# ENODEV is what a kept descriptor of a removed cgroup answers (kernfs_get_active fails), ESRCH what
# /proc/PID/* answers once the task is reaped.
_GONE = frozenset({errno.ENOENT, errno.ENODEV, errno.ESTALE, errno.ESRCH, errno.ENOTDIR, errno.ENXIO})
# EOPNOTSUPP: *.pressure with psi=0 or cgroup.pressure=0, cpu.idle on a cgroup with SCHED_IDLE not built in.
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, errno.EISDIR})
_HINTS = {
    errno.EACCES: "run as root, or give the agent CAP_DAC_OVERRIDE",
    errno.EPERM: "run as root, or in the host's user namespace",
    errno.EROFS: "mount the cgroup file systems writable (in a container: a writable hostPath)",
    errno.EMFILE: "raise LimitNOFILE (ulimit -n) of the agent",
    errno.ENFILE: "raise fs.file-max",
}


def translated(error: OSError, path: str) -> AgentError:
    """The AgentError that `error`, met at `path`, stands for; raise it `from error`."""
    code = error.errno or 0
    line = f"{path}: {error.strerror or error}"
    if code in _GONE:
        return Gone(line)
    if code in _UNSUPPORTED:
        return Unsupported(line, hint="this kernel or its boot parameters do not give this file (psi=1?)")
    return Refused(line, hint=_HINTS.get(code, ""))
