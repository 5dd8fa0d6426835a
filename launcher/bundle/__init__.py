"""Write all that a machine without a network needs, and install it there.

`tasks.py` calls `make.make`. The script `offline_setup.py` goes into the bundle, and needs only
Python's standard library.
"""
