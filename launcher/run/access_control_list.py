"""What the access control list of a file allows a user."""

import os
import struct
from pathlib import Path

_USER = 0x02
_MASK = 0x10


def acl_bits(path: Path, uid: int) -> int | None:
    """Return the mode bits that the file's access control list gives `uid`, if it names them.

    https://github.com/torvalds/linux/blob/master/include/uapi/linux/posix_acl_xattr.h
    """
    try:
        entries = struct.iter_unpack("<HHI", os.getxattr(path, "system.posix_acl_access")[4:])
    except OSError:
        return None
    allowed = {(tag, name if tag == _USER else 0): bits for tag, bits, name in entries}
    if (_USER, uid) not in allowed:
        return None
    return allowed[_USER, uid] & allowed.get((_MASK, 0), 0o7)
