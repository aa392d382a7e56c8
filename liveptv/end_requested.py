"""Whether a signal has asked this program to end.

The signal becomes a `KeyboardInterrupt` wherever the program is. Inside a C extension (h5py) that can surface as
another error; with this it is still reported as a stop.
"""

import threading

end_requested = threading.Event()
