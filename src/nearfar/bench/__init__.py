"""Speed and memory of the losses beside other libraries, plain autograd and the floor: the command `nearfar bench`.

Forward and backward of one loss on random unit rows, eight items a class, float32. Each measurement has a process of
its own, the libraries take turns, the first run of a process is not counted. No framework is imported before a
measurement, and no other library has to be there.
"""

from nearfar.bench.cases import CASES, GROUPS, Bar, Case, Run, chosen
from nearfar.bench.job import bench
from nearfar.bench.judge import judged
from nearfar.bench.runner import machine, measured

__all__ = ["CASES", "GROUPS", "Bar", "Case", "Run", "bench", "chosen", "judged", "machine", "measured"]
