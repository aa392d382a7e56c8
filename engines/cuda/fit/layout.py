"""What the fit's kernel and its host agree on: places of numbers in arrays, and the constants of `refine`.

`header` writes all of it for the compilers, so that it stands here and in `refine` alone.
"""

from __future__ import annotations

from engines.refine import joint_fit, normal_equations, spline
from engines.refine.grouping import LARGEST_BLOCK
from engines.refine.rendering import BOTTOM, BOX, CELL, LEFT, RIGHT, SPARE_UM, TOP, A, X, Y, Z

THREADS = 128
"""Threads that fit a block. A lone particle's 1,600 pixels are 12 for each, so that sums over the threads (5 steps
for 26 sums) take a tenth of the time."""
AT_A_TIME = 4
"""Thread blocks that a multiprocessor is to hold: at most 65,536 / (4 x 128) = 128 registers for a thread."""
PLANE = 1849
"""Values of a spline's plane that are kept in shared memory, 43 x 43: larger ones are in the work space, behind a
cache. With more, four thread blocks would not fit into the 100 kB of a multiprocessor of a GeForce."""

# `ints`: the launch first, then a record for each task and each row (particle), lists of rows and tasks, flags
TASKS, TALL, WIDE, TASKS_AT, ROWS_AT, LISTS_AT, FLAGS_AT, LARGEST_AREA, LARGEST_SINGLE, LARGEST_IMAGES = (
    range(10)
)
HEAD = 16
"""Numbers of the launch: tasks; the frame's size; where the parts begin; values of the largest block, of the
largest single image, and of the images of all particles of a block."""
FIRST, COUNT, WAITS, WAITING, NEAR, NEARBY, CORNER_Y, CORNER_X, HIGH, ACROSS, DATA, PARENT = range(12)
TASK = 12
"""Numbers of a task: where its rows begin in the lists and how many, tasks to wait for, rows of those that may have
come near; the rectangle of its pixels in the frame, and where they begin; the task whose particle this one fits by
itself, if that is singular, or -1."""
OWN_BOX = 0
IS_PLAIN, RECT_Y, RECT_X, RECT_TALL, RECT_WIDE, DELTA = range(BOX, BOX + 6)
ROW = 12
"""Numbers of a row: its rectangle, whether the image of all shows it with the mean PSF, the rectangle in which the
change of its image is written, where that begins."""
# `scene`: doubles for the launch, then the start (4) of each row
READ, SHOT, SIGN, BRIGHTNESS, PRECISION, ORIGIN_Y, ORIGIN_X = range(7)
SCENE = 8
# `results`: doubles for each row
THETA, COVARIANCE, FIT, ENDED, FILLED, DRAWN, TRIALS, IS_SPLIT, IS_LOST = 0, 4, 20, 22, 23, 24, 25, 26, 27
RESULT = 28
LATE = -1  # of `ENDED`: what it waits for did not end in time
"""`FILLED`: the covariance and the fit hold; `DRAWN`: the change of the image is written; `TRIALS`: steps tried;
`IS_SPLIT`: its block of several was singular; `IS_LOST`: and it is too far away to be fitted by itself here."""
# the model
NODES, PIXELS, MODES, ROWS, COLUMNS, LEVELS = range(6)
FIRST_UM, STEP_UM, MIN_UM, MAX_UM, CELL_TALL, CELL_WIDE, FAINT, BRIGHT = range(8)

PLACES = (
    *("TASKS", "TALL", "WIDE", "TASKS_AT", "ROWS_AT", "LISTS_AT", "FLAGS_AT"),
    *("LARGEST_AREA", "LARGEST_SINGLE", "LARGEST_IMAGES", "HEAD"),
    *(
        "FIRST",
        "COUNT",
        "WAITS",
        "WAITING",
        "NEAR",
        "NEARBY",
        "CORNER_Y",
        "CORNER_X",
        "HIGH",
        "ACROSS",
        "DATA",
        "PARENT",
        "TASK",
    ),
    *("OWN_BOX", "IS_PLAIN", "RECT_Y", "RECT_X", "RECT_TALL", "RECT_WIDE", "DELTA", "ROW"),
    *("READ", "SHOT", "SIGN", "BRIGHTNESS", "PRECISION", "ORIGIN_Y", "ORIGIN_X", "SCENE"),
    *(
        "THETA",
        "COVARIANCE",
        "FIT",
        "ENDED",
        "FILLED",
        "DRAWN",
        "TRIALS",
        "IS_SPLIT",
        "IS_LOST",
        "RESULT",
        "LATE",
    ),
    *("NODES", "PIXELS", "MODES", "ROWS", "COLUMNS", "LEVELS"),
    *("FIRST_UM", "STEP_UM", "MIN_UM", "MAX_UM", "CELL_TALL", "CELL_WIDE", "FAINT", "BRIGHT"),
    *("THREADS", "AT_A_TIME", "PLANE"),
)
SHARED_WITH_REFINE: dict[str, float] = {
    "X": X,
    "Y": Y,
    "Z": Z,
    "A": A,
    "TOP": TOP,
    "BOTTOM": BOTTOM,
    "LEFT": LEFT,
    "RIGHT": RIGHT,
    "CELL": CELL,
    "BOX": BOX,
    "SPARE_UM": SPARE_UM,
    "MEMBERS": LARGEST_BLOCK,
    "GROUND": normal_equations.GROUND,
    "LEAST_PIVOT": normal_equations.LEAST_PIVOT,
    "TAPS": spline.TAPS,
    **{
        name: getattr(joint_fit, name)
        for name in (
            *("CONVERGED", "SINGULAR", "NOT_CONVERGED", "SMALL_GAIN", "CHANCE", "ITERATIONS", "LEAST_LIGHT"),
            *("LARGEST_STEP_PX", "LARGEST_STEP_UM", "FIRST_DAMPING", "LESS_DAMPING", "MORE_DAMPING"),
            *("LEAST_DAMPING", "LEAST_RAISED_DAMPING", "MOST_DAMPING"),
        )
    },
}


def header() -> str:
    """The text of `layout.h`."""
    numbers = {**{name: globals()[name] for name in PLACES}, **SHARED_WITH_REFINE}
    return "".join(f"#define {name} {value!r}\n" for name, value in numbers.items())
