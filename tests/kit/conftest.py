"""The fixtures of the small lab."""

from tests.small_lab import deeper as deeper
from tests.small_lab import school as school
from tests.small_lab import sheet as sheet
