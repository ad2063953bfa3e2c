"""An audit of networks that rely on one pixel, by as much as is said."""

import torch

import cfx
from cfx.confounder.audit import Audit
from cfx.confounder.plan import Plan
from cfx.core.cohort import Cohort
from tests.confounder.linear import networks, toggle


def audited(cheat: float = 2.0, k: int = 6, confounder: str = "pixel") -> Audit:
    """An audit of `k` networks with this much weight on the pixel, checked against itself."""
    change = toggle()
    pixel = (change.untouched[:, 0, -1, -1] > 0).float()
    cohort = Cohort(x=change.untouched, y=change.y, covariates={confounder: pixel, "age": torch.arange(40.0)})
    plan = Plan(confounder=confounder, seeds=k, doses=(0.5,), flips=199)
    asked = networks(cheat, k=k)
    return cfx.audit(asked, cohort, plan, intervention=change, exact=change, permutations=99)
