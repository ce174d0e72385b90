"""What the kernel refuses is said."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from underlay import libc


@pytest.mark.parametrize(
    ("call", "number", "said"),
    [
        (lambda path: libc.mount("none", path, "no-such-kind"), None, "mount none on {path}: "),
        (lambda path: libc.mount("", path, flags=libc.MS_SHARED), None, "mount again on {path}: "),
        (libc.detach, None, "unmount {path}: "),
        (lambda _: libc.unshare(0x1), errno.EINVAL, "unshare(0x1): Invalid argument"),
        (lambda _: libc.setns(-1, libc.CLONE_NEWNET), errno.EBADF, "setns(-1, 0x40000000): Bad file descriptor"),
    ],
)
def test_a_refusal_says_what_was_refused(
    tmp_path: Path, call: Callable[[str], None], number: int | None, said: str
) -> None:
    path = tmp_path / "ü"  # as others may be refused for their rights, and root for what is asked
    path.mkdir()
    with pytest.raises(OSError, match=r".") as caught:
        call(str(path))
    assert number in {None, caught.value.errno}
    assert caught.value.strerror is not None
    assert caught.value.strerror.startswith(said.format(path=path))
    assert caught.value.strerror.endswith(os.strerror(caught.value.errno or 0))
