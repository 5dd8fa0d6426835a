"""Code that a test runs inside a container: it looks at what is allowed there."""

# `tried` returns "worked" or why it was refused; `status` is /proc/self/status.
TRIED = """
def tried(work):
    try:
        work()
        return "worked"
    except OSError as error:
        return error.strerror or str(error)

status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
"""
