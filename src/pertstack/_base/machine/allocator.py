"""Arrow's memory from the system's allocator, for programs of our own: imported by the command line before pyarrow.

Arrow asks for a buffer as long as a whole record batch and fills only the columns that are wanted. The system's
allocator never touches the rest; pooling ones keep it resident (reading 20,000 x 10,716 from compressed Arrow peaked
at 740 instead of 265 MB). A choice made by the user is kept.
"""

from __future__ import annotations

import os

os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
