"""The fit in part: which particles get it, what the others keep and state, and that none waits for ever."""

from __future__ import annotations

import math

import numpy as np
import pytest
from astigmatic import model_of_astigmatic_images

from engines.refine.choice import choose, cost_of_groups, need_of
from engines.refine.refiner import NETWORK_SEARCH_UM, Refiner
from engines.refine.stated_errors import StatedErrors
from engines.refine.turns import ALL, Allowance, Candidates, FitTurns
from stream.messages import DetectionFlag
