"""``python -m jowa.conformance FOLDER``: does this code compute what the published implementation did?

The folder holds cases recorded from the published implementation, of any sizes and games.
Needs torch and numpy alone.
"""

from jowa.conformance.cases import Cases, load_cases
from jowa.conformance.compare import TOLERANCES, Result, Tolerance
from jowa.conformance.groups import GROUPS, run_groups

__all__ = ["GROUPS", "TOLERANCES", "Cases", "Result", "Tolerance", "load_cases", "run_groups"]
