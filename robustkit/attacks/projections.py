"""The nearest point where a linear function vanishes inside the box, in linf and l2."""

from __future__ import annotations

import torch
from torch import Tensor

from robustkit.threat import FAR, ThreatModel


def step_to_plane(x: Tensor, w: Tensor, value: Tensor, threat: ThreatModel) -> Tensor:
    """Give the smallest step d with <w, d> = -value and x + d in the box.

    x (N, D) lies in the box, w (N, D), value (N,) is the linear function at x. Where the plane
    misses the box, the step ends at the corner nearest to it. Coordinate i moves by
    min(t * rate_i, room_i) against w_i, where rate is 1 in linf and |w| in l2; the gain in t is
    concave and piecewise linear, so Newton's method from 0 rises to the root in finitely many
    steps. Croce and Hein 2020 (arXiv 1907.02044), section 2.2.
    """
    downhill = -w.sign() * torch.where(value >= 0, 1.0, -1.0).to(w).unsqueeze(1)
    room = torch.where(downhill > 0, threat.high - x, x - threat.low).clamp(0, FAR)
    slope = w.abs()
    rate = torch.ones_like(w) if threat.norm == "linf" else slope
    gain_moving, gain_at_wall, goal = slope * rate, slope * room, value.abs()
    at_wall = room <= 0
    while True:
        moving = gain_moving.masked_fill(at_wall, 0).sum(1)
        gained = gain_at_wall.where(at_wall, gain_at_wall.new_zeros(())).sum(1)
        t = ((goal - gained).clamp(min=0) / moving).nan_to_num(posinf=FAR).clamp(max=FAR)
        reached = at_wall | (t.unsqueeze(1) * rate >= room)
        if torch.equal(reached, at_wall):
            return downhill * torch.minimum(t.unsqueeze(1) * rate, room)
        at_wall = reached
