"""Contract tests: what robustkit asks of every component, for plugins to run on their own.

In a plugin's test file:

    from robustkit.testing import parametrize_with_checks

    @parametrize_with_checks([MyAttack, MyAttack(draws=3), MyLoss])
    def test_contract(component, check):
        check.run(component)
"""

from robustkit.testing.core import (
    Check,
    ContractError,
    NotApplicableError,
    Result,
    Subject,
    check,
    checks,
    parametrize_with_checks,
)

__all__ = [
    "Check",
    "ContractError",
    "NotApplicableError",
    "Result",
    "Subject",
    "check",
    "checks",
    "parametrize_with_checks",
]
