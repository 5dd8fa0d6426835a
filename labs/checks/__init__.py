"""What proves a part right: a module per lab, a function per part, given an implementation."""
