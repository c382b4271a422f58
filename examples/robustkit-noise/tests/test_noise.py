from robustkit_noise import Noise

from robustkit.testing import parametrize_with_checks


@parametrize_with_checks([Noise, Noise(draws=3)])
def test_contract(component, check):
    check.run(component)
